// The page: what a reader sets, what the counts say, and when the picture is drawn. Nothing runs while nothing moves.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const SECONDS = 6.5; // a fall from noise to data
  const COARSE = 28, FINE = 56; // steps while a hand moves something, and at rest
  const NAMES = ["blue circle", "orange square", "green triangle", "purple diamond"], SIGNS = ["●", "■", "▲", "◆"];
  const TOOLS = [["move", "add, move"], ["forget", "× forget"], ["double", "double"], ["erase", "erase"]];

  class Playground {
    constructor(root) {
      this.root = root;
      this.hero = root.hasAttribute("data-hero");
      this.powers = (root.dataset.powers ?? "").split(" ").map(Number);
      this.parts = Object.fromEntries([...root.querySelectorAll("[data-pg]")].map((node) => [node.dataset.pg, node]));
      this.count = this.hero ? 240 : 400;
      this.still = matchMedia("(prefers-reduced-motion: reduce)");
      this.tool = "move"; this.colour = 0; this.chosen = -1; this.held = false; this.past = []; this.place = null; this.u = 0; this.frames = 0;
      const asked = pg.scenes.read(this.hero ? "" : location.hash);
      this.fill();
      this.listen();
      this.show(asked.settings, asked.name || (asked.any ? "" : "memory"));
    }

    // Controls are made once; later only their values change, so that nothing loses the focus.

    fill() {
      const { parts } = this, option = (value, text) => new Option(text, value);
      pg.points.presets.forEach(([name]) => parts.set.append(option(name, name)));
      [["none", "nothing"], ["point", "a training point, drawn at random"], ["each", "a colour, drawn at random"],
        ...NAMES.map((name, i) => [String(i), name.replace(" ", ", ")])].forEach(([value, text]) => parts.label.append(option(value, text)));
      pg.unlearn.arms.forEach(([value, text]) => parts.arm.append(option(value, text)));
      const scenes = this.root.querySelector(".pg-scenes");
      const wanted = this.hero ? ["memory", "width", "extract", "obtuse"] : pg.scenes.list.map(([name]) => name);
      this.sceneButtons = wanted.map((name) => {
        const title = pg.scenes.list.find(([key]) => key === name)[1];
        return this.button(scenes, title, () => { this.quiet = false; this.show(pg.scenes.scene(name), name); this.play(); }, name);
      });
      this.colourButtons = NAMES.map((name, i) => {
        const button = this.button(parts.colours, SIGNS[i], () => { this.colour = i; this.refresh(); });
        button.classList.add("pg-swatch"); button.setAttribute("aria-label", name);
        return button;
      });
      this.toolButtons = TOOLS.map(([name, text]) => this.button(parts.tools, text, () => { this.tool = name; this.refresh(); }, name));
    }

    button(home, text, act, name = "") {
      const button = document.createElement("button");
      button.type = "button"; button.className = "pg-button"; button.textContent = text; button.dataset.name = name;
      button.addEventListener("click", act);
      home.append(button);
      return button;
    }

    listen() {
      const { parts } = this, set = (key, value) => { this.settings[key] = value; };
      const on = (part, kind, act) => parts[part].addEventListener(kind, act);
      on("play", "click", () => (this.playing ? this.pause() : this.play()));
      on("u", "input", () => { this.pause(); this.u = Number(parts.u.value); this.draw(); });
      on("h", "input", () => { set("eta", 0); set("h", Number(parts.h.value)); this.changed(true); });
      on("eta", "input", () => { set("eta", 10 ** Number(parts.eta.value)); this.changed(true); });
      on("lambda", "input", () => { set("lambda", weightOf(Number(parts.lambda.value))); this.changed(true); });
      on("alpha", "input", () => { set("alpha", Number(parts.alpha.value)); this.changed(true); });
      for (const part of ["h", "eta", "lambda", "alpha"]) on(part, "change", () => this.changed());
      on("rule", "change", () => { set("rule", parts.rule.value); this.changed(); });
      on("label", "change", () => { set("label", parts.label.value); if (!this.settings.lambda) set("lambda", 1); this.changed(); });
      on("arm", "change", () => { set("arm", parts.arm.value); this.changed(); });
      on("tilted", "change", () => { set("tilted", parts.tilted.checked); this.changed(); });
      on("set", "change", () => { this.keep(); set("set", parts.set.value); this.points = pg.scenes.pointsOf(this.settings); this.chosen = -1; this.changed(); });
      on("noise", "click", () => { set("seed", this.settings.seed + 1); this.changed(); this.play(); });
      on("undo", "click", () => this.undo());
      on("link", "click", () => this.share());
      addEventListener("hashchange", () => {
        const asked = pg.scenes.read(location.hash);
        if (!this.hero && asked.any) { this.show(asked.settings, asked.name); this.play(); }
      });
      new MutationObserver(() => this.draw()).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(parts.plane);
      new IntersectionObserver(([entry]) => {
        if (!entry.isIntersecting) { if (this.playing) this.pause(); } else if (!this.seen) { this.seen = true; if (!this.quiet && this.u === 0) this.play(); }
      }, { threshold: 0.3 }).observe(parts.plane);
      pg.hand(this);
    }

    /** Take over settings and their points. */
    show(settings, name) {
      this.settings = { ...settings }; this.name = name; this.points = pg.scenes.pointsOf(settings); this.chosen = -1; this.past = [];
      this.u = this.still.matches ? 1 : 0;
      this.changed(false, true);
    }

    /** Something changed: all samples again, at once; finely when the hand has let go. */
    changed(moving = false, scene = false) {
      if (!scene) this.name = "";
      clearTimeout(this.rest);
      if (this.settings.eta) this.settings.h = Math.min(pg.steps.width(this.settings.eta, this.powers), 1.5);
      this.compute(moving ? COARSE : FINE);
      if (moving) this.rest = setTimeout(() => { this.compute(FINE); this.refresh(); this.tell(); }, 140);
      else this.tell();
      this.refresh();
    }

    compute(steps) {
      const { settings, points, count } = this, grid = pg.samples.levels(steps), z = pg.samples.noise(settings.seed, count);
      const run = (change) => {
        const model = pg.unlearn.prepare({ ...settings, points, ...change });
        const states = pg.samples.paths(model, z, grid, pg.samples.targets(model, settings.seed, count));
        return { model, states, judged: pg.counts.judge(points, states.at(-1), settings.rule) };
      };
      this.grid = grid;
      this.run = { ...run({}), points };
      const guided = this.run.model.label !== "none" && settings.lambda > 0, unlearned = this.run.model.arm !== "all";
      this.run.unguided = guided ? run({ label: "none" }).judged : null;
      this.run.before = unlearned ? run({ arm: "all", label: "none" }) : null;
      const shown = points.filter((p) => this.run.model.arm === "all" || !p.forgotten);
      this.run.model.colourSet = pg.denoiser.pack(shown); this.run.model.colourOf = shown.map((p) => p.colour);
      this.run.byColour = [[], [], [], [], []];
      this.run.judged.verdicts.forEach(({ index }, s) => this.run.byColour[index < 0 ? 0 : points[index].colour + 1].push(s));
      this.run.curve = this.curve();
      if (steps === FINE) {
        this.nll = pg.likelihood.forgottenNll(this.run.model, points);
        this.nllBefore = unlearned ? pg.likelihood.forgottenNll(this.run.before.model, points) : this.nll;
      }
    }

    /** The median number of points behind one denoising, at every level. */
    curve() {
      const { model, states } = this.run;
      return states.map((state, k) => {
        const values = [];
        for (let i = 0; i < state.length; i += 16) values.push(pg.denoiser.effective(model.colourSet, state[i], state[i + 1], this.grid[k], model.h));
        return values.sort((a, b) => a - b)[values.length >> 1];
      });
    }

    /** The state in words and meters. */
    refresh() {
      const { parts, settings, run, points } = this, { judged } = run, n = judged.count;
      const percent = (k) => `${Math.round((100 * k) / n)} %`, setValue = (part, value) => { if (document.activeElement !== parts[part] || parts[part].value !== String(value)) parts[part].value = value; };
      const scene = pg.scenes.list.find(([name]) => name === this.name);
      if (scene) parts.caption.textContent = scene[3];
      else if (!this.hero) parts.caption.textContent = "Your own setting. Everything on this page is computed from the points that you see, and from nothing else.";
      this.sceneButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === this.name)));
      this.colourButtons.forEach((button, i) => { button.setAttribute("aria-pressed", String(i === this.colour)); });
      this.toolButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === this.tool)));
      setValue("h", settings.h); setValue("lambda", placeOf(settings.lambda)); setValue("alpha", settings.alpha);
      setValue("eta", settings.eta ? Math.log10(settings.eta) : -5);
      for (const part of ["label", "arm", "rule", "set"]) parts[part].value = settings[part];
      parts.tilted.checked = settings.tilted;
      parts["h-out"].textContent = settings.h.toFixed(2); parts["lambda-out"].textContent = short(settings.lambda);
      parts["alpha-out"].textContent = settings.alpha.toFixed(2); parts["eta-out"].textContent = settings.eta ? short(settings.eta) : "not set";
      parts["lambda-row"].hidden = settings.label === "none";
      parts["alpha-row"].hidden = ["all", "without"].includes(settings.arm);
      const [low, high] = pg.counts.interval(judged.copies, n);
      parts.copies.textContent = `${judged.copies} of ${n} samples copy a point`;
      parts["copies-more"].textContent = `(95\u00a0% interval ${Math.round(100 * low)} to ${Math.round(100 * high)}\u00a0%), ${judged.distinct} of ${judged.places} points. The mark is chance: ${settings.rule === "ratio" ? "1/9" : "5 %"}.`;
      bar(parts["copies-bar"], judged.copies / n); tick(parts["copies-tick"], settings.rule === "ratio" ? 1 / 9 : 0.05);
      parts.attack.textContent = run.unguided
        ? `${judged.copies} copies of ${judged.distinct} points; without the push ${run.unguided.copies} of ${run.unguided.distinct}, from the same noise.`
        : "No attack: samples fall as the model lets them.";
      const crossed = points.filter((p) => p.forgotten).length, drawn = crossed > 0;
      parts.forgotten.textContent = !drawn ? "No point is crossed out. Cross some to have them forgotten."
        : `${judged.forgotten} of ${n} samples (${percent(judged.forgotten)}) lie in the crossed part` + (run.before ? `, ${run.before.judged.forgotten} before` : "")
          + `${judged.astray ? `; ${judged.astray} left the data` : ""}. ${this.nllSentence(run)}`;
      bar(parts["forgotten-bar"], judged.forgotten / n); tick(parts["forgotten-tick"], (run.before ?? run).judged.forgotten / n);
      parts.forgotten.nextElementSibling.hidden = !drawn;
      parts.steps.textContent = settings.eta
        ? `A score as smooth as that of η = ${short(settings.eta)} has the width h = ${settings.h.toFixed(2)}: ${judged.copies} of ${n} samples copy.`
        : "Move the rate: a larger one learns a smoother score.";
      parts.plane.setAttribute("aria-label", `The plane: ${points.length} training points, ${n} samples. ${this.sentence()}`);
      this.draw();
    }

    /** A large number here is no proof of forgetting: the share beside it says what is still drawn. */
    nllSentence(run) {
      const told = (value) => (value === Infinity ? "beyond every bound" : value.toFixed(1));
      return run.before ? `Their NLL: ${told(this.nll)} nats, ${told(this.nllBefore)} before.` : `Their NLL: ${told(this.nll)} nats.`;
    }

    sentence() {
      const { judged } = this.run, { settings } = this;
      const lost = this.points.some((p) => p.forgotten) ? ` ${judged.forgotten} lie where points are crossed out.` : "";
      return `${judged.copies} of ${judged.count} samples copy a training point, ${judged.distinct} of ${judged.places} points are copied.${lost}`
        + `${judged.astray ? ` ${judged.astray} have left the data.` : ""} Width ${settings.h.toFixed(2)}.`;
    }

    /** The counts for who listens, once the hand rests. */
    tell(text) {
      clearTimeout(this.telling);
      if (text) { this.parts.live.textContent = text; return; }
      this.telling = setTimeout(() => { this.parts.live.textContent = this.sentence(); }, 700);
    }

    share() {
      const link = pg.scenes.write(this.settings);
      history.replaceState(null, "", link);
      navigator.clipboard?.writeText(location.href).catch(() => {});
      this.tell("The address of this page now holds the settings, but not points that you moved by hand.");
    }

    // Points, each change kept for one step back.

    keep() { this.past.push(JSON.stringify(this.points)); if (this.past.length > 100) this.past.shift(); }

    undo() {
      if (!this.past.length) return;
      this.points = JSON.parse(this.past.pop()); this.chosen = -1; this.changed();
    }

    add(x, y) {
      if (this.points.length >= pg.points.most) { this.tell(`${pg.points.most} points are the most that this page takes.`); return; }
      this.keep(); this.points.push(pg.points.point(x, y, this.colour)); this.chosen = this.points.length - 1; this.changed();
    }

    /** What the tool does to point i. */
    act(i, tool) {
      const p = this.points[i];
      if (tool === "double" && this.points.length >= pg.points.most) return;
      if (tool === "erase" && this.points.length < 3) { this.tell("Two points are the least that this page takes."); return; }
      this.keep();
      if (tool === "forget") { p.forgotten = !p.forgotten; if (p.forgotten && this.settings.arm === "all") this.settings.arm = "without"; }
      if (tool === "double") this.points.push({ ...p });
      if (tool === "erase") { this.points.splice(i, 1); this.chosen = -1; }
      this.changed();
    }

    // Time.

    get level() {
      const t = this.u * (this.grid.length - 1), k = Math.min(Math.floor(t), this.grid.length - 2);
      return { t, sigma: this.grid[k] + (t - k) * (this.grid[k + 1] - this.grid[k]) };
    }

    play() {
      if (this.still.matches) { this.u = 1; this.draw(); return; }
      if (this.u >= 1) this.u = 0;
      this.playing = true; this.parts.play.textContent = "Pause";
      let before = 0;
      const step = (now) => {
        if (!this.playing) return;
        if (before) this.u = Math.min(1, this.u + Math.min(Math.max(now - before, 0), 50) / 1000 / SECONDS);
        before = now; this.frames++;
        this.paint();
        if (this.u >= 1) this.pause(); else this.pending = requestAnimationFrame(step);
      };
      cancelAnimationFrame(this.pending);
      this.pending = requestAnimationFrame(step);
    }

    pause() {
      this.playing = false; cancelAnimationFrame(this.pending); this.waiting = false;
      this.parts.play.textContent = this.u >= 1 ? "Again" : "Play";
      this.draw();
    }

    /** Draw at the next frame, once. */
    draw() {
      if (this.waiting || this.playing || !this.run) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.paint(); });
    }

    paint() {
      const { parts, run, points } = this, canvas = parts.plane, dense = Math.min(devicePixelRatio || 1, 2);
      const width = canvas.clientWidth, height = canvas.clientHeight;
      if (!width || !height || !run) return;
      if (canvas.width !== Math.round(width * dense)) canvas.width = Math.round(width * dense);
      if (canvas.height !== Math.round(height * dense)) canvas.height = Math.round(height * dense);
      const ctx = canvas.getContext("2d"), view = (this.view = pg.draw.frame(width, height)), colours = pg.draw.palette(), { t, sigma } = this.level;
      ctx.setTransform(dense, 0, 0, dense, 0, 0);
      ctx.clearRect(0, 0, width, height);
      pg.draw.background(ctx, view, run.model, colours, sigma, this.playing ? 48 : 96);
      pg.draw.needles(ctx, view, run.model, colours, sigma, this.u >= 1 ? 0.16 : 0.32);
      pg.draw.samples(ctx, view, run, colours, this.u * (run.states.length - 1));
      pg.draw.points(ctx, view, points, colours, this.chosen);
      parts.probe.hidden = !this.place;
      if (this.place) {
        const [x, y] = this.place, small = Math.max(sigma, 1e-6), [ex, ey] = pg.unlearn.predicted(run.model, x, y, small), answer = [x - small * ex, y - small * ey];
        pg.draw.probe(ctx, view, colours, this.place, answer);
        parts.probe.textContent = `D(${x.toFixed(1)}, ${y.toFixed(1)}) = (${answer[0].toFixed(2)}, ${answer[1].toFixed(2)}), a mean of ${pg.denoiser.effective(run.model.colourSet, x, y, sigma, run.model.h).toFixed(1)} points`;
      }
      this.paintCurve(colours, dense, t);
      const behind = run.curve[Math.min(Math.round(t), run.curve.length - 1)];
      parts.level.textContent = `noise σ = ${short(sigma)}; points behind one denoising: ${behind.toFixed(1)} of ${run.model.colourSet.n}`;
      parts.u.value = this.u;
      parts.u.setAttribute("aria-valuetext", `noise ${short(sigma)}`);
    }

    paintCurve(colours, dense, t) {
      const canvas = this.parts.curve, width = canvas.clientWidth, height = canvas.clientHeight, { curve, model } = this.run;
      if (!width) return;
      canvas.width = Math.round(width * dense); canvas.height = Math.round(height * dense);
      const ctx = canvas.getContext("2d"), most = Math.log(Math.max(model.colourSet.n, 2)), last = curve.length - 1;
      const x = (k) => 8 + ((width - 16) * k) / last, y = (value) => height - 3 - ((height - 6) * Math.log(Math.max(value, 1))) / most;
      ctx.setTransform(dense, 0, 0, dense, 0, 0);
      ctx.strokeStyle = colours.soft; ctx.lineWidth = 1.6; ctx.beginPath();
      curve.forEach((value, k) => (k ? ctx.lineTo(x(k), y(value)) : ctx.moveTo(x(k), y(value))));
      ctx.stroke();
      const k = Math.min(Math.floor(t), last - 1), now = curve[k] + (t - k) * (curve[k + 1] - curve[k]);
      ctx.fillStyle = colours.ink; ctx.beginPath(); ctx.arc(x(t), y(now), 4, 0, 2 * Math.PI); ctx.fill();
    }
  }

  /** The weight's slider is a square root, because 0 to 4 needs more room than 4 to 32. */
  const weightOf = (place) => Math.round(3200 * place * place) / 100;
  const placeOf = (weight) => Math.sqrt(weight / 32);
  const short = (value) => (value === 0 ? "0" : value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2)).toString());
  const bar = (node, part) => { node.style.width = `${100 * Math.min(part, 1)}%`; };
  const tick = (node, part) => { node.style.left = `${100 * Math.min(part, 1)}%`; };

  const start = () => document.querySelectorAll(".pg").forEach((root) => { root.playground = new Playground(root); });
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start); else start();
})();
