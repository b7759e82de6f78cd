// The training points: presets a reader can start from, and the random numbers that every part of the page draws.
// Plain scripts, not modules: a page opened from a folder (file://) may not load modules. Each adds to one object.
(() => {
  const pg = (globalThis.memPlayground ??= {});

  /** Uniform numbers in [0, 1) from a seed (the generator "mulberry32"): the same on every machine. */
  function uniform(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** Standard normal numbers from a seed (Box and Muller). */
  function normal(seed) {
    const next = uniform(seed);
    return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  }

  const point = (x, y, colour, forgotten = false) => ({ x, y, colour, forgotten });

  /** Three clusters on a diagonal, 16, 8 and 16 points: the toy of chapters 1 and 4, thinned. */
  function clusters() {
    const draw = normal(4), points = [];
    [[-2, 16], [0, 8], [2, 16]].forEach(([centre, count], colour) => {
      for (let i = 0; i < count; i++) points.push(point(centre + 0.85 * draw(), centre + 0.85 * draw(), colour));
    });
    return points;
  }

  function twoMoons() {
    const draw = normal(2), points = [];
    for (let i = 0; i < 40; i++) {
      const angle = (Math.PI * (Math.floor(i / 2) + 0.5)) / 20, upper = i % 2 === 0;
      const x = upper ? Math.cos(angle) : 1 - Math.cos(angle), y = upper ? Math.sin(angle) : 0.4 - Math.sin(angle);
      points.push(point(2.2 * (x - 0.5) + 0.1 * draw(), 2.2 * (y - 0.2) + 0.1 * draw(), upper ? 0 : 1));
    }
    return points;
  }

  function ring() {
    return Array.from({ length: 32 }, (_, i) => {
      const angle = (2 * Math.PI * i) / 32;
      return point(2.8 * Math.cos(angle), 2.8 * Math.sin(angle), Math.floor(i / 8));
    });
  }

  /** The three clusters with the middle point of the right one eight times in the set. */
  function duplicate() {
    const points = clusters(), copied = points[30];
    for (let i = 0; i < 7; i++) points.push({ ...copied });
    return points;
  }

  /** Names in the order of the menu. `digits` is filled from digits.js, which is written by its own test. */
  const presets = [
    ["three clusters", clusters],
    ["two moons", twoMoons],
    ["ring", ring],
    ["one duplicate", duplicate],
    ["digits", () => pg.digits.map(([x, y, colour]) => point(x, y, colour))],
  ];
  pg.points = { uniform, normal, point, presets, most: 150 };
})();
