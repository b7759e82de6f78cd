// The picture: where each colour rules, the field, the samples on their way, the points.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const HALF = 4.9; // the plane shows at least [-4.9, 4.9] both ways
  const palettes = {
    light: { points: ["#0173b2", "#c56f00", "#01835f", "#b4549f"], ink: "#212529", paper: "#ffffff", soft: "#6c757d" },
    dark: { points: ["#4fb0ee", "#f2a93b", "#41cf9f", "#e796d6"], ink: "#e9ecef", paper: "#14181e", soft: "#9aa4ae" },
  };

  /** The theme's choice, or the system's where the page stands alone. */
  function palette() {
    const theme = document.documentElement.dataset.theme;
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    return dark ? palettes.dark : palettes.light;
  }

  /** From the plane to pixels and back. */
  function frame(width, height) {
    const scale = Math.min(width, height) / (2 * HALF);
    return {
      width, height, scale, px: (x) => width / 2 + scale * x, py: (y) => height / 2 - scale * y,
      x: (px) => (px - width / 2) / scale, y: (py) => (height / 2 - py) / scale,
    };
  }

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  /** A path of a point's sign: circle, square, triangle, diamond, so that colour is not needed to tell them apart. */
  function sign(ctx, kind, x, y, r) {
    if (kind === 0) { ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 2 * Math.PI); return; }
    const corners = [[], [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], [[0, -1.15], [1.1, 0.8], [-1.1, 0.8]], [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]][kind];
    corners.forEach(([a, b], i) => (i ? ctx.lineTo(x + r * a, y + r * b) : ctx.moveTo(x + r * a, y + r * b)));
    ctx.closePath();
  }

  const small = typeof document === "undefined" ? null : document.createElement("canvas");

  /** Each place in the mean colour of the points that answer there: what D is to positions, this is to colours. */
  function background(ctx, view, model, colours, sigma, columns) {
    const rows = Math.max(1, Math.round((columns * view.height) / view.width)), v = pg.denoiser.variance(sigma, model.h);
    small.width = columns; small.height = rows;
    const inner = small.getContext("2d"), image = inner.createImageData(columns, rows), data = image.data, hatched = [];
    const shades = colours.points.map(rgb), set = model.colourSet, weights = new Float64Array(set.n), uniform = 1 / set.n;
    const turns = model.arm === "obtuse" || model.arm === "bounded";
    for (let j = 0, at = 0; j < rows; j++) for (let i = 0; i < columns; i++, at += 4) {
      const x = view.x(((i + 0.5) * view.width) / columns), y = view.y(((j + 0.5) * view.height) / rows);
      pg.denoiser.look(set, x, y, v, weights);
      let r = 0, g = 0, b = 0, top = 0;
      for (let k = 0; k < set.n; k++) {
        const w = weights[k], shade = shades[model.colourOf[k]];
        r += w * shade[0]; g += w * shade[1]; b += w * shade[2];
        if (w > top) top = w;
      }
      data[at] = r; data[at + 1] = g; data[at + 2] = b;
      data[at + 3] = 255 * (0.1 + 0.2 * (set.n > 1 ? (top - uniform) / (1 - uniform) : 1));
      if (turns && (i + j) % 2 === 0 && pg.unlearn.predicted(model, x, y, sigma)[2]) hatched.push([x, y]);
    }
    inner.putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = true; ctx.imageSmoothingQuality = "low";
    ctx.drawImage(small, 0, 0, view.width, view.height);
    const d = view.width / columns;
    ctx.strokeStyle = colours.ink; ctx.globalAlpha = 0.5; ctx.lineWidth = 1; ctx.beginPath();
    for (const [x, y] of hatched) { ctx.moveTo(view.px(x) - d, view.py(y) + d); ctx.lineTo(view.px(x) + d, view.py(y) - d); }
    ctx.stroke(); ctx.globalAlpha = 1;
  }

  /** The score's direction as needles, thick at the tail; their length follows |D - x| up to one cell. */
  function needles(ctx, view, model, colours, sigma, alpha) {
    const cell = 27, v = pg.denoiser.variance(sigma, model.h);
    ctx.fillStyle = colours.ink; ctx.globalAlpha = alpha; ctx.beginPath();
    for (let py = cell / 2; py < view.height; py += cell) for (let px = cell / 2; px < view.width; px += cell) {
      const [ex, ey] = pg.unlearn.predicted(model, view.x(px), view.y(py), sigma);
      const length = (Math.hypot(ex, ey) * v) / Math.max(sigma, 1e-9);
      if (!(length > 1e-6)) continue;
      const size = (0.85 * cell * length) / (length + 1), ux = (-ex * v) / Math.max(sigma, 1e-9) / length, uy = (ey * v) / Math.max(sigma, 1e-9) / length;
      ctx.moveTo(px - uy * 1.6, py + ux * 1.6); ctx.lineTo(px + ux * size, py + uy * size); ctx.lineTo(px + uy * 1.6, py - ux * 1.6);
    }
    ctx.fill(); ctx.globalAlpha = 1;
  }

  /** Samples at place t of their paths, in the colour of the point where they will end, with the last steps as a tail. */
  function samples(ctx, view, run, colours, t) {
    const k = Math.min(Math.floor(t), run.states.length - 2), part = t - k, from = run.states[k], to = run.states[k + 1], done = t >= run.states.length - 1.001;
    const at = (i) => [view.px(from[i] + part * (to[i] - from[i])), view.py(from[i + 1] + part * (to[i + 1] - from[i + 1]))];
    for (let c = -1; c < 4; c++) {
      const shade = c < 0 ? colours.soft : colours.points[c];
      const mine = run.byColour[c + 1];
      if (!mine.length) continue;
      if (!done) {
        ctx.strokeStyle = shade; ctx.globalAlpha = 0.35; ctx.lineWidth = 1.2; ctx.beginPath();
        for (const s of mine) {
          const back = run.states[Math.max(0, k - 4)], [x, y] = at(2 * s);
          ctx.moveTo(view.px(back[2 * s]), view.py(back[2 * s + 1]));
          for (let j = Math.max(0, k - 3); j <= k; j++) ctx.lineTo(view.px(run.states[j][2 * s]), view.py(run.states[j][2 * s + 1]));
          ctx.lineTo(x, y);
        }
        ctx.stroke();
      }
      ctx.globalAlpha = 0.9; ctx.fillStyle = shade; ctx.strokeStyle = shade; ctx.lineWidth = 1.3;
      for (const filled of [false, true]) {
        ctx.beginPath();
        for (const s of mine) {
          if ((done ? run.judged.verdicts[s].copy : true) !== filled) continue;
          const [x, y] = at(2 * s), r = done && !filled ? 2.6 : 2.3;
          ctx.moveTo(x + r, y); ctx.arc(x, y, r, 0, 2 * Math.PI);
        }
        if (filled) ctx.fill(); else ctx.stroke();
      }
      ctx.globalAlpha = 1;
    }
    if (!done) return;
    ctx.lineWidth = 1.6; ctx.globalAlpha = 0.75;
    run.judged.hits.forEach((hits, i) => {
      if (!hits) return;
      const p = run.points[i];
      ctx.strokeStyle = colours.points[p.colour]; ctx.beginPath();
      ctx.arc(view.px(p.x), view.py(p.y), 5 + 1.9 * Math.sqrt(hits), 0, 2 * Math.PI); ctx.stroke();
    });
    ctx.globalAlpha = 1;
  }

  function points(ctx, view, list, colours, chosen) {
    for (const [i, p] of list.entries()) {
      const x = view.px(p.x), y = view.py(p.y), r = i === chosen ? 8 : 5.5;
      ctx.lineWidth = 2; ctx.beginPath(); sign(ctx, p.colour, x, y, r);
      ctx.fillStyle = p.forgotten ? colours.paper : colours.points[p.colour]; ctx.fill();
      ctx.strokeStyle = p.forgotten ? colours.points[p.colour] : colours.paper; ctx.lineWidth = p.forgotten ? 1.8 : 1.3; ctx.stroke();
      if (!p.forgotten) continue;
      ctx.strokeStyle = colours.ink; ctx.lineWidth = 1.6; ctx.beginPath();
      ctx.moveTo(x - 4, y - 4); ctx.lineTo(x + 4, y + 4); ctx.moveTo(x + 4, y - 4); ctx.lineTo(x - 4, y + 4); ctx.stroke();
    }
  }

  /** The probe: where x is, where D(x, sigma) is, and the line between them. */
  function probe(ctx, view, colours, place, answer) {
    const a = [view.px(place[0]), view.py(place[1])], b = [view.px(answer[0]), view.py(answer[1])];
    ctx.strokeStyle = colours.ink; ctx.lineWidth = 1.8; ctx.beginPath(); ctx.moveTo(...a); ctx.lineTo(...b); ctx.stroke();
    ctx.beginPath(); ctx.moveTo(a[0] - 7, a[1]); ctx.lineTo(a[0] + 7, a[1]); ctx.moveTo(a[0], a[1] - 7); ctx.lineTo(a[0], a[1] + 7); ctx.stroke();
    ctx.fillStyle = colours.paper; ctx.beginPath(); ctx.arc(...b, 4.5, 0, 2 * Math.PI); ctx.fill(); ctx.stroke();
  }

  pg.draw = { frame, palette, background, needles, samples, points, probe };
})();
