// What the samples give away: memlib's metrics.l2_ratio, its calibrated distance, and metrics.Count with its interval.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const DISTINCT = 1e-6; // two points closer than this are one image
  const ASTRAY = 6; // beyond, a sample is nowhere near the data: chapter 4's rule

  /** The nearest point of (x, y) and the squared distances to it and to the nearest distinct one. */
  function nearest(points, x, y) {
    let first = Infinity, index = -1;
    for (let i = 0; i < points.length; i++) {
      const a = points[i].x - x, b = points[i].y - y, d = a * a + b * b;
      if (d < first) { first = d; index = i; }
    }
    let second = Infinity;
    for (const p of points) {
      const a = p.x - points[index].x, b = p.y - points[index].y;
      if (a * a + b * b <= DISTINCT * DISTINCT) continue;
      const d = (p.x - x) ** 2 + (p.y - y) ** 2;
      if (d < second) second = d;
    }
    return { index, first, second };
  }

  /** The distance that one distinct point in twenty has to its nearest neighbour or less: a copy is nearer than that. */
  function calibrated(points) {
    const near = points.map((p) => Math.sqrt(nearest(points, p.x, p.y).second)).filter(Number.isFinite).sort((a, b) => a - b);
    if (!near.length) return 0;
    const place = 0.05 * (near.length - 1), low = Math.floor(place);
    return near[low] + (place - low) * (near[Math.min(low + 1, near.length - 1)] - near[low]);
  }

  /** For each sample: nearest point, copy or not (by "ratio" or "distance"), in the forgotten part or not, astray or not. */
  function judge(points, ends, rule) {
    const tau = calibrated(points), count = ends.length / 2, verdicts = [];
    let copies = 0, forgotten = 0, astray = 0;
    const hits = new Int32Array(points.length);
    for (let i = 0; i < count; i++) {
      const x = ends[2 * i], y = ends[2 * i + 1];
      if (!(Math.abs(x) <= ASTRAY && Math.abs(y) <= ASTRAY)) { astray++; verdicts.push({ index: -1, copy: false }); continue; }
      const { index, first, second } = nearest(points, x, y);
      const copy = rule === "distance" ? first < tau * tau : 9 * first < second;
      if (copy) { copies++; hits[index]++; }
      if (points[index].forgotten) forgotten++;
      verdicts.push({ index, copy });
    }
    const places = new Set(), seen = new Set();
    points.forEach((p, i) => {
      const place = points.findIndex((q) => (p.x - q.x) ** 2 + (p.y - q.y) ** 2 <= DISTINCT * DISTINCT);
      places.add(place);
      if (hits[i]) seen.add(place);
    });
    return { count, copies, distinct: seen.size, places: places.size, forgotten, astray, hits, verdicts };
  }

  /** log of the binomial probability of at most k of n at rate p, summed from its terms. */
  function atMost(k, n, p, logs) {
    let sum = 0;
    for (let i = 0; i <= k; i++) sum += Math.exp(logs[n] - logs[i] - logs[n - i] + i * Math.log(p) + (n - i) * Math.log1p(-p));
    return sum;
  }

  /** The exact 95 % interval of a rate k / n (Clopper and Pearson 1934), by bisection. */
  function interval(k, n) {
    const logs = new Float64Array(n + 1);
    for (let i = 1; i <= n; i++) logs[i] = logs[i - 1] + Math.log(i);
    const root = (above) => {
      let low = 0, high = 1;
      for (let i = 0; i < 50; i++) { const middle = (low + high) / 2; if (above(middle)) high = middle; else low = middle; }
      return (low + high) / 2;
    };
    return [
      k === 0 ? 0 : root((p) => 1 - atMost(k - 1, n, p, logs) > 0.025),
      k === n ? 1 : root((p) => atMost(k, n, p, logs) < 0.025),
    ];
  }

  pg.counts = { nearest, calibrated, judge, interval };
})();
