/** Whether what a part of the page shows has changed since it was last drawn: the kernel sends a whole state for any change. */

export class Changed {
  private drawn = '';

  /** Whether `values` differ from those of the last call. */
  by(...values: unknown[]): boolean {
    const now = JSON.stringify(values);
    const differs = now !== this.drawn;
    this.drawn = now;
    return differs;
  }
}
