// Mouse, finger and keys on the plane. A finger on a point drags it; a finger anywhere else scrolls the page.
(() => {
  const pg = (globalThis.memPlayground ??= {});
  const EDGE = 6; // a point stays where samples are not yet astray
  const inside = (value) => Math.min(EDGE, Math.max(-EDGE, value));

  pg.hand = (page) => {
    const plane = page.parts.plane;
    let dragged = -1, began = null;

    const where = (event) => {
      const box = plane.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const hit = ([px, py], reach) => {
      let best = -1, least = reach * reach;
      page.points.forEach((p, i) => {
        const d = (page.view.px(p.x) - px) ** 2 + (page.view.py(p.y) - py) ** 2;
        if (d < least) { least = d; best = i; }
      });
      return best;
    };

    // Must not be passive: only so can a touch on a point keep the page from scrolling.
    plane.addEventListener("touchstart", (event) => {
      if (!page.hero && event.touches.length === 1 && hit(where(event.touches[0]), 24) >= 0) event.preventDefault();
    }, { passive: false });

    plane.addEventListener("pointerdown", (event) => {
      page.quiet = true;
      if (page.hero || !page.view || event.button) return;
      const at = where(event), i = hit(at, event.pointerType === "mouse" ? 12 : 24);
      began = { at, i };
      if (i >= 0 && page.tool === "move") { page.keep(); dragged = i; page.chosen = i; plane.setPointerCapture(event.pointerId); }
    });
    plane.addEventListener("pointermove", (event) => {
      if (!page.view) return;
      const at = where(event), x = page.view.x(at[0]), y = page.view.y(at[1]);
      page.place = [x, y];
      if (dragged < 0) { page.draw(); return; }
      page.points[dragged].x = inside(x); page.points[dragged].y = inside(y);
      page.changed(true);
    });
    plane.addEventListener("pointerup", (event) => {
      if (!began) return;
      const at = where(event), still = (at[0] - began.at[0]) ** 2 + (at[1] - began.at[1]) ** 2 < 36, { i } = began;
      const moved = dragged >= 0 && !still;
      if (dragged >= 0 && !moved) page.past.pop();
      dragged = -1; began = null;
      if (moved) page.changed();
      else if (still && i >= 0 && page.tool !== "move") page.act(i, page.tool);
      else if (still && i < 0 && page.tool === "move") page.add(inside(page.view.x(at[0])), inside(page.view.y(at[1])));
    });
    plane.addEventListener("pointercancel", () => { if (dragged >= 0) page.undo(); dragged = -1; began = null; });
    plane.addEventListener("pointerleave", () => { page.place = null; page.draw(); });
    plane.addEventListener("blur", () => { page.held = false; page.place = null; page.draw(); });

    const say = () => {
      const i = page.chosen, p = page.points[i];
      if (p) page.tell(`Point ${i + 1} of ${page.points.length} at ${p.x.toFixed(1)}, ${p.y.toFixed(1)}${p.forgotten ? ", crossed out" : ""}${page.held ? ", taken up" : ""}.`);
    };
    plane.addEventListener("keydown", (event) => {
      if (page.hero) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, some = page.chosen >= 0;
      const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
      if (event.ctrlKey || event.metaKey) { if (key !== "z") return; page.undo(); }
      else if (event.altKey) return;
      else if (arrow) {
        const far = event.shiftKey ? 0.5 : 0.1, [x, y] = page.place ?? [0, 0];
        page.place = [inside(x + far * arrow[0]), inside(y + far * arrow[1])];
        if (page.held && some) { [page.points[page.chosen].x, page.points[page.chosen].y] = page.place; page.changed(true); }
        else { page.chosen = -1; page.draw(); }
      } else if (key === "n" || key === "p") {
        const n = page.points.length;
        page.held = false; page.chosen = key === "n" ? (page.chosen + 1) % n : (page.chosen + n - (some ? 1 : 0)) % n;
        if (page.chosen >= n || page.chosen < 0) page.chosen = n - 1;
        page.place = [page.points[page.chosen].x, page.points[page.chosen].y]; page.draw();
      } else if (key === "Enter") {
        if (some) { if (!page.held) page.keep(); page.held = !page.held; if (!page.held) page.changed(); }
        else page.add(...(page.place ?? [0, 0]));
      } else if (key === "f" && some) page.act(page.chosen, "forget");
      else if (key === "d" && some) page.act(page.chosen, "double");
      else if ((key === "Delete" || key === "Backspace") && some) page.act(page.chosen, "erase");
      else if (/^[1-4]$/.test(key)) {
        page.colour = Number(key) - 1;
        if (some) { page.keep(); page.points[page.chosen].colour = page.colour; page.changed(); } else page.refresh();
      } else if (key === "Escape") { page.held = false; page.chosen = -1; page.place = null; page.draw(); plane.blur(); }
      else return;
      event.preventDefault();
      say();
    });
  };
})();
