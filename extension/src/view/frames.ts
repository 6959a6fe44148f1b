/** Drawing at most once a frame, however many messages come: the first at once, what follows with the next frame. */

export class Frames {
  private readonly due = new Map<string, () => void>();
  private waiting = false;

  /** Notes what is to be drawn; of what is due under one name the last alone. */
  later(name: string, draw: () => void): void {
    this.due.delete(name);
    this.due.set(name, draw);
  }

  /** Draws what is due, as soon as nothing else has been drawn in this frame. */
  draw(): void {
    if (this.waiting || this.due.size === 0) {
      return;
    }
    const draws = [...this.due.values()];
    this.due.clear();
    draws.forEach(draw => draw());
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  /** Forgets what was due. */
  clear(): void {
    this.due.clear();
  }
}
