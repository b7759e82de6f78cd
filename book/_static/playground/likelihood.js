// The log-likelihood of a place under any model, by its probability flow (Song et al. 2021, eq. 39, with sigma as time):
//
//   log p(x_0) = log N(x_T; 0, sigma_T^2 I) + integral of div e(x, sigma) d sigma,   dx / d sigma = e(x, sigma)
//
// It starts at the level 0.1, because points without a width have no density. The steps are those of Heun.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const START = 0.1, END = 80, STEPS = 96, NUDGE = 1e-4; // at 80 the points no longer matter to the noise

  /** e and its divergence at a place, by central differences. */
  function flow(model, x, y, sigma) {
    const at = (a, b) => pg.unlearn.predicted(model, a, b, sigma), [ex, ey] = at(x, y), d = NUDGE * Math.max(sigma, 0.1);
    const div = (at(x + d, y)[0] - at(x - d, y)[0] + at(x, y + d)[1] - at(x, y - d)[1]) / (2 * d);
    return [ex, ey, div];
  }

  /** log p of the model at (x, y), in nats; -Infinity where the flow leaves every bound. */
  function logLikelihood(model, x, y) {
    const { RHO } = pg.samples, low = START ** (1 / RHO), high = END ** (1 / RHO);
    let sum = 0, sigma = START;
    for (let k = 1; k <= STEPS; k++) {
      const next = (low + ((high - low) * k) / STEPS) ** RHO, step = next - sigma;
      const [ax, ay, a] = flow(model, x, y, sigma);
      const [bx, by, b] = flow(model, x + step * ax, y + step * ay, next);
      x += (step * (ax + bx)) / 2; y += (step * (ay + by)) / 2; sum += (step * (a + b)) / 2; sigma = next;
      if (!(Math.abs(x) < 1e4 && Math.abs(y) < 1e4 && Math.abs(sum) < 1e6)) return -Infinity;
    }
    return sum - (x * x + y * y) / (2 * END * END) - Math.log(2 * Math.PI * END * END);
  }

  /** The median over the forgotten points of -log p, in nats; NaN where nothing is forgotten. */
  function forgottenNll(model, points) {
    const values = points.filter((p) => p.forgotten).map((p) => -logLikelihood(model, p.x, p.y)).sort((a, b) => a - b);
    return values.length ? values[Math.floor((values.length - 1) / 2)] : NaN;
  }

  pg.likelihood = { logLikelihood, forgottenNll, START };
})();
