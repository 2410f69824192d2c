/** Numbers from 0 to 1, the same for the same seed. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The text in pieces of random length. */
export function* pieces(text, next) {
  for (let from = 0; from < text.length; ) {
    const length = 1 + Math.floor(next() * 7);
    yield text.slice(from, from + length);
    from += length;
  }
}
