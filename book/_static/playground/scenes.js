// The settings that a chapter or a button can ask for by name, and the address that carries them: #show-obtuse, or
// #show=obtuse&h=0.3 with settings of its own. The chapters link to labels of the page, which are checked at the build.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const plain = { set: "three clusters", h: 0, label: "none", lambda: 0, arm: "all", alpha: 0.7, tilted: false, rule: "ratio", eta: 0, cross: "", seed: 7 };

  /** name, title, settings that differ from the plain ones, what to look at. No numbers: the page counts them. */
  const list = [
    ["memory", "Perfect memory", {},
      "This is the best denoiser of these points. At low noise it answers with a single point, so every sample ends on one."],
    ["width", "Give points a width", { h: 0.45 },
      "Now each point stands for a small cloud. Samples spread out, and the copies fall towards the number that chance gives."],
    ["duplicate", "A duplicate", { set: "one duplicate", h: 0.12 },
      "One point is in the set eight times. It is drawn about eight times as often: look at the ring around it."],
    ["extract", "Extract", { h: 0.15, label: "point", lambda: 2 },
      "An attacker steers each sample to a training point. Copies rise with the weight, then fall: too much weight overshoots."],
    ["labels", "Labels drawn at random", { h: 0.15, label: "each", lambda: 4 },
      "Each sample gets a colour at random. A large weight drags it out of the place where it would have ended."],
    ["retrain", "Retrain", { h: 0.5, arm: "without", cross: "1" },
      "The crossed points were left out of the training. The gap lies between others, and the model fills it."],
    ["obtuse", "Push away", { h: 0.5, arm: "obtuse", tilted: true, cross: "1" },
      "The obtuse loss turns the score away from the crossed points. The hatched places are those where nothing may stay."],
    ["too-much", "Push too hard", { h: 0.7, arm: "obtuse", alpha: 0.3, cross: "1" },
      "A larger share of the unlearning loss throws samples out of the data. Few are left in the gap, and many are lost."],
    ["again", "Attack again", { h: 0.5, arm: "without", label: "1", lambda: 2, cross: "1" },
      "The attacker's classifier knows the crossed colour, and brings it back from a model that never saw it."],
    ["steps", "Large steps", { eta: 0.01 },
      "A large learning rate learns a smoother score. Here smoothness is a width, tied to the rate by chapter 5's figure."],
  ];

  const numbers = { h: [0, 1.5], lambda: [0, 32], alpha: [0.05, 1], eta: [0, 0.1], seed: [0, 1e6] };
  const words = {
    label: ["none", "point", "each", "0", "1", "2", "3"], rule: ["ratio", "distance"],
    arm: pg.unlearn.arms.map(([name]) => name), set: pg.points.presets.map(([name]) => name),
  };

  /** The settings of a scene. */
  const scene = (name) => ({ ...plain, ...(list.find(([key]) => key === name) ?? list[0])[2] });

  /** The settings that an address asks for; what it says wrongly is passed over. */
  function read(fragment) {
    const asked = new URLSearchParams(fragment.replace(/^#/, "").replace(/^show-/, "show=")), name = asked.get("show");
    const known = list.some(([key]) => key === name), settings = scene(known ? name : "memory");
    let any = known;
    for (const [key, text] of asked) {
      const value = Number(text);
      if (key in numbers && text !== "" && value >= numbers[key][0] && value <= numbers[key][1]) settings[key] = value;
      else if (key in words && words[key].includes(text)) settings[key] = text;
      else if (key === "cross" && /^[0-3]*$/.test(text)) settings.cross = text;
      else if (key === "tilted") settings.tilted = text === "1";
      else continue;
      any = true;
    }
    return { settings, name: known ? name : "", any };
  }

  /** The address of some settings: only what differs from the plain ones. */
  function write(settings) {
    const asked = new URLSearchParams();
    for (const [key, value] of Object.entries(plain)) {
      if (settings[key] !== value) asked.set(key, key === "tilted" ? String(Number(settings[key])) : String(settings[key]));
    }
    return "#" + asked;
  }

  /** The points of some settings: those of the set, with whole colours crossed out. */
  function pointsOf(settings) {
    const points = pg.points.presets.find(([name]) => name === settings.set)[1]();
    for (const p of points) p.forgotten = settings.cross.includes(String(p.colour));
    return points;
  }

  pg.scenes = { list, scene, read, write, pointsOf, plain };
})();
