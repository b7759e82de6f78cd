// Samples that fall from noise along the probability flow: memlib's noise.karras and sample.ancestral.
// Whole paths are computed at once, so the counts are always those of finished samples and the slider costs nothing.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const LOW = 0.005, HIGH = 10, RHO = 7, LOST = 1000;

  /** steps levels evenly spaced in sigma^(1/7) from 10 to 0.005, then 0. */
  function levels(steps) {
    const top = HIGH ** (1 / RHO), bottom = LOW ** (1 / RHO), grid = new Float64Array(steps + 1);
    for (let i = 0; i < steps; i++) grid[i] = (top + ((bottom - top) * i) / (steps - 1)) ** RHO;
    return grid;
  }

  /** The noise of `count` samples, [x, y, x, y, ...]; sample i has the same noise in every setting. */
  function noise(seed, count) {
    const draw = pg.points.normal(seed);
    return Float64Array.from({ length: 2 * count }, draw);
  }

  /** One label a sample, drawn at random for "point" (a training point each) and "each" (a colour each). */
  function targets(model, seed, count) {
    const next = pg.points.uniform(seed + 7919), filled = [0, 1, 2, 3].filter((c) => model.colours[c].n);
    return Array.from({ length: count }, () => {
      const u = next();
      if (model.label === "point") { const i = Math.floor(u * model.all.n); return [model.all.x[i], model.all.y[i]]; }
      return filled[Math.floor(u * filled.length)];
    });
  }

  /**
   * The states of all samples at every level, by DDIM, which is an Euler step of the flow: an array of
   * Float64Array(2 N), one a level. A sample that has left the plane stays where it is.
   */
  function paths(model, z, grid, labels) {
    const states = [z.map((value) => value * grid[0])];
    for (let k = 0; k + 1 < grid.length; k++) {
      const sigma = grid[k], keep = grid[k + 1] / sigma, now = states[k], then = new Float64Array(now.length);
      for (let i = 0; i < now.length; i += 2) {
        const x = now[i], y = now[i + 1];
        if (!(Math.abs(x) < LOST && Math.abs(y) < LOST)) { then[i] = x; then[i + 1] = y; continue; }
        const [a, b] = pg.unlearn.denoise(model, x, y, sigma, labels[i / 2]);
        then[i] = a + keep * (x - a); then[i + 1] = b + keep * (y - b);
      }
      states.push(then);
    }
    return states;
  }

  pg.samples = { levels, noise, targets, paths, LOW, HIGH, RHO };
})();
