/** Whether anybody can see the view: it is laid out, scrolled into the window, and its page is in front. */
export class Sight {
  private seen = true;
  private within = true;

  constructor(
    node: Element,
    private readonly tell: (visible: boolean) => void
  ) {
    new IntersectionObserver(entries => {
      this.within = entries.at(-1)!.isIntersecting;
      this.look();
    }).observe(node);
    document.addEventListener('visibilitychange', this.look);
  }

  dispose(): void {
    document.removeEventListener('visibilitychange', this.look);
  }

  private readonly look = (): void => {
    const seen = this.within && document.visibilityState === 'visible';
    if (seen !== this.seen) {
      this.seen = seen;
      this.tell(seen);
    }
  };
}
