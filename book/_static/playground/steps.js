// What a large learning rate does, as chapter 5 measures it: a smoother score. Two powers of that chapter (claim L6) tie
// the width h to the rate. The slope's total variation falls as eta^a, and that of the exact score as sigma^b. A score as
// smooth as that of eta is therefore the exact one at the level w0 (eta / eta0)^(a / b), and h is that level.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const RATE = 1e-4; // eta0: the score is taken to have the width W0 there, the one thing that the figure does not give
  const WIDTH = 0.05;

  /** The width that stands for the learning rate eta, given the two powers of the kept record. */
  const width = (eta, powers) => WIDTH * (eta / RATE) ** (powers[0] / powers[1]);

  pg.steps = { width, RATE, WIDTH };
})();
