// What the playground computes for given inputs, as JSON: in node (standard input and output) or in a page, for the tests.
function answers({ scene, places, noise, labels, judged, steps }) {
  const pg = globalThis.memPlayground, settings = { ...pg.scenes.scene(scene), ...steps };
  const points = pg.scenes.pointsOf(settings), model = pg.unlearn.prepare({ ...settings, points });
  const drawn = labels.map((u) => (model.label === "point" ? [points[u].x, points[u].y] : points[u].colour));
  const grid = pg.samples.levels(56), states = pg.samples.paths(model, Float64Array.from(noise), grid, drawn);
  const ends = Array.from(states.at(-1)), count = pg.counts.judge(points, ends, judged);
  const { copies, distinct, places: different, forgotten, astray } = count;
  return {
    points, settings, ends, grid: Array.from(grid),
    counts: { copies, distinct, different, forgotten, astray },
    interval: pg.counts.interval(copies, count.count),
    calibrated: pg.counts.calibrated(points),
    D: places.map(([x, y, sigma], i) => pg.unlearn.denoise(model, x, y, sigma, drawn[i])),
    field: places.map(([x, y, sigma]) => pg.unlearn.predicted(model, x, y, sigma).slice(0, 2)),
    score: places.map(([x, y, sigma]) => pg.denoiser.score(model.all, x, y, sigma, settings.h)),
    effective: places.map(([x, y, sigma]) => pg.denoiser.effective(model.all, x, y, sigma, settings.h)),
    logLikelihood: places.map(([x, y]) => pg.likelihood.logLikelihood(model, x, y)),
    width: pg.steps.width(0.01, [-1.5, -3]),
  };
}

if (typeof module !== "undefined") {
  const [, , ...scripts] = process.argv;
  scripts.forEach((script) => require(script));
  console.log(JSON.stringify(answers(JSON.parse(require("node:fs").readFileSync(0, "utf8")))));
}
