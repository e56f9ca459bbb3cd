// The bridge from a subscription's loop, which hands over and waits, to
// `for await`, which asks.

import type { RejoinError } from './errors.js';
import type { Message } from './message.js';

/** Resolves when the message has been handled. */
export type Deliver<T> = (message: Message<T>) => Promise<void>;

interface Offer<T> {
  message: Message<T>;
  done: () => void;
  left: (reason: symbol) => void;
}

type Result<T> = IteratorResult<Message<T>, undefined>;

export class Consumer<T> implements AsyncIterator<Message<T>> {
  /** Why a delivery is undone: the loop was left in the middle of it. */
  static readonly LEFT = Symbol('left');

  private offer: Offer<T> | undefined;
  private taken: Offer<T> | undefined;
  private waiting: { resolve: (result: Result<T>) => void; reject: (error: unknown) => void } | undefined;
  private ended: { error: RejoinError | undefined } | undefined;

  constructor(private readonly onReturn: () => void) {}

  readonly deliver: Deliver<T> = (message) =>
    new Promise((done, left) => {
      this.offer = { message, done, left };
      this.match();
    });

  next(): Promise<Result<T>> {
    this.taken?.done();
    this.taken = undefined;
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.match();
    });
  }

  async return(): Promise<Result<T>> {
    this.onReturn();
    this.end(undefined);
    return { done: true, value: undefined };
  }

  /** The subscription ended: so does the loop, or it throws. */
  end(error: RejoinError | undefined): void {
    this.ended ??= { error };
    for (const offer of [this.taken, this.offer]) offer?.left(Consumer.LEFT);
    this.taken = this.offer = undefined;
    this.match();
  }

  private match(): void {
    const { waiting, offer, ended } = this;
    if (!waiting || !(offer || ended)) return;
    this.waiting = undefined;
    if (offer) {
      this.offer = undefined;
      this.taken = offer;
      waiting.resolve({ done: false, value: offer.message });
    } else if (ended!.error) {
      waiting.reject(ended!.error);
    } else {
      waiting.resolve({ done: true, value: undefined });
    }
  }
}
