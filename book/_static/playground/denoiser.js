// The best denoiser of a finite training set, in closed form: memlib's analytic.GaussianMixture(points, std=h).
//
//   D(x, sigma) = x + sigma^2 / v (m - x),   v = sigma^2 + h^2,   m = sum_i w_i x_i,   w = softmax(-|x - x_i|^2 / 2v)
//
// h = 0 is the perfect memorizer. The score is (m - x) / v.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const FLOOR = 1e-18; // sigma = h = 0: the limit is the nearest point

  /** Coordinates of some points as two flat arrays, which the loops below read fast. */
  function pack(points) {
    return { n: points.length, x: Float64Array.from(points, (p) => p.x), y: Float64Array.from(points, (p) => p.y) };
  }

  /**
   * What a set says about the place (x, y) at variance v. Everything is a sum of differences from the place, because
   * a difference of two large sums would lose digits far from the points.
   *   dx, dy   m - x                    best  the smallest |x - x_i|^2 / 2v
   *   total    sum exp(best - q_i)      squares  sum w_i^2, whose inverse is the number of points behind the answer
   */
  function look(set, x, y, v, weights) {
    const half = 0.5 / v;
    let best = Infinity;
    for (let i = 0; i < set.n; i++) {
      const a = set.x[i] - x, b = set.y[i] - y, q = (a * a + b * b) * half;
      if (q < best) best = q;
    }
    let total = 0, dx = 0, dy = 0, squares = 0;
    for (let i = 0; i < set.n; i++) {
      const a = set.x[i] - x, b = set.y[i] - y, w = Math.exp(best - (a * a + b * b) * half);
      total += w; dx += w * a; dy += w * b; squares += w * w;
      if (weights) weights[i] = w;
    }
    if (weights) for (let i = 0; i < set.n; i++) weights[i] /= total;
    return { dx: dx / total, dy: dy / total, best, total, squares: squares / (total * total) };
  }

  const variance = (sigma, h) => Math.max(sigma * sigma + h * h, FLOOR);

  /** D(x, sigma) as [x, y]. */
  function denoise(set, x, y, sigma, h) {
    const v = variance(sigma, h), { dx, dy } = look(set, x, y, v), pull = (sigma * sigma) / v;
    return sigma === 0 && h === 0 ? [x + dx, y + dy] : [x + pull * dx, y + pull * dy];
  }

  /** The score, grad log p(x; sigma), as [x, y]. */
  function score(set, x, y, sigma, h) {
    const v = variance(sigma, h), { dx, dy } = look(set, x, y, v);
    return [dx / v, dy / v];
  }

  /** How many points stand behind D at this place: 1 / sum w_i^2. */
  const effective = (set, x, y, sigma, h) => 1 / look(set, x, y, variance(sigma, h)).squares;

  /** log p_set(x) up to a constant that all sets share at one v. */
  const logDensity = (set, seen) => Math.log(seen.total / set.n) - seen.best;

  pg.denoiser = { pack, look, variance, denoise, score, effective, logDensity };
})();
