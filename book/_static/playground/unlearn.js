// Models after unlearning, and models under guidance, in closed form (memlib.papers.sgu.optima, memlib.denoiser.guided).
//
// p_g and p_f are the densities of the kept and of the forgotten points, e_g and e_f the noise that each set predicts,
// and s = w (1 - alpha) / alpha, with w = 1 or 1 / (0.1 + sigma^2).
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const { pack, look, variance, logDensity } = pg.denoiser;
  const REACH = 4; // of the bounded form: how long the push away may be, in lengths of e_f
  const MOST = 60; // nats: beyond, an odds ratio is e^60 and the sample has left the plane

  const arms = [
    ["all", "trained on all points"],
    ["without", "retrained without them"],
    ["orthogonal", "orthogonal (SGU)"],
    ["obtuse", "obtuse (SGU)"],
    ["bounded", "obtuse, bounded"],
  ];

  /** The sets that a model needs: all points, the kept, the forgotten, and the label of the attack. */
  function prepare(state) {
    const { points } = state, kept = points.filter((p) => !p.forgotten), lost = points.filter((p) => p.forgotten);
    const split = kept.length > 0 && lost.length > 0;
    const colour = /^[0-3]$/.test(state.label) ? points.filter((p) => p.colour === Number(state.label)) : [];
    return {
      all: pack(points), kept: pack(kept), lost: pack(lost), colour: pack(colour),
      colours: [0, 1, 2, 3].map((c) => pack(points.filter((p) => p.colour === c))),
      arm: split ? state.arm : "all", alpha: state.alpha, tilted: state.tilted, h: state.h,
      label: colour.length || state.label === "point" || state.label === "each" ? state.label : "none", lambda: state.lambda,
    };
  }

  /** The noise that the unlearned model predicts at a place, as [x, y]; `push` tells how far it is turned away. */
  function predicted(model, x, y, sigma) {
    const v = variance(sigma, model.h), scale = -sigma / v;
    if (model.arm === "all") {
      const a = look(model.all, x, y, v);
      return [scale * a.dx, scale * a.dy, 0];
    }
    const g = look(model.kept, x, y, v), gx = scale * g.dx, gy = scale * g.dy;
    if (model.arm === "without") return [gx, gy, 0];
    const weights = model.arm === "orthogonal" ? new Float64Array(model.lost.n) : undefined;
    const f = look(model.lost, x, y, v, weights), fx = scale * f.dx, fy = scale * f.dy;
    const s = ((model.tilted ? 1 / (0.1 + sigma * sigma) : 1) * (1 - model.alpha)) / model.alpha;
    const odds = Math.min(logDensity(model.lost, f) - logDensity(model.kept, g), MOST);
    if (model.arm === "obtuse") {
      const push = (s / 2) * Math.exp(odds);
      return [gx - push * fx, gy - push * fy, push > 1 ? 1 : 0];
    }
    if (model.arm === "bounded") {
      const lean = 1 / (1 + Math.exp(-(odds + Math.log(s / (2 * REACH)))));
      return [(1 - lean) * gx - REACH * lean * fx, (1 - lean) * gy - REACH * lean * fy, lean > 0.5 ? 1 : 0];
    }
    return [...orthogonal(model, x, y, sigma, v, s * Math.exp(odds), weights, gx, gy), 0];
  }

  /** [I + k M]^-1 e_g, where M = E[n n^T | x] under the forgotten points. */
  function orthogonal(model, x, y, sigma, v, k, weights, gx, gy) {
    const scale = sigma / v, spare = (model.h * model.h) / v;
    let xx = 0, xy = 0, yy = 0;
    for (let i = 0; i < model.lost.n; i++) {
      const a = scale * (x - model.lost.x[i]), b = scale * (y - model.lost.y[i]), w = weights[i];
      xx += w * a * a; xy += w * a * b; yy += w * b * b;
    }
    // With one forgotten point in reach the determinant is 0 up to rounding, and rounding times k^2 is not small.
    let det = xx * yy - xy * xy;
    if (det < 1e-12 * xx * yy) det = 0;
    det += spare * (xx + yy) + spare * spare;
    xx += spare; yy += spare;
    const whole = 1 + k * (xx + yy) + k * k * det;
    return [((1 + k * yy) * gx - k * xy * gy) / whole, ((1 + k * xx) * gy - k * xy * gx) / whole];
  }

  /**
   * D of the model at a place, with guidance: D + lambda sigma^2 grad log p(y | x), where the classifier is exact and
   * knows all points, the forgotten ones too. Its gradient is (m_y - m) / v. `target` is the sample's own label: a point
   * [x, y] where labels are points, a colour where they are colours.
   */
  function denoise(model, x, y, sigma, target) {
    const v = variance(sigma, model.h), [ex, ey] = predicted(model, x, y, sigma);
    let px = x - sigma * ex, py = y - sigma * ey;
    if (model.label === "none" || model.lambda === 0) return [px, py];
    const m = look(model.all, x, y, v), pull = (model.lambda * sigma * sigma) / v;
    let lx, ly;
    if (model.label === "point") { lx = target[0] - x; ly = target[1] - y; }
    else {
      const l = look(model.label === "each" ? model.colours[target] : model.colour, x, y, v);
      lx = l.dx; ly = l.dy;
    }
    px += pull * (lx - m.dx); py += pull * (ly - m.dy);
    return [px, py];
  }

  pg.unlearn = { arms, prepare, predicted, denoise, REACH };
})();
