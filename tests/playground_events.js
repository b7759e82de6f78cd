// Works the page as a reader would, with keys and a pointer, and notes what came of it.
async function events() {
  const page = document.querySelector(".pg").playground, { plane, live } = page.parts, found = {};
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const press = (...keys) => keys.forEach((key) => plane.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true })));
  const pointer = (kind, x, y) => {
    const box = plane.getBoundingClientRect();
    plane.dispatchEvent(new PointerEvent(kind, { clientX: box.left + page.view.px(x), clientY: box.top + page.view.py(y), pointerId: 1, pointerType: "mouse", bubbles: true }));
  };
  plane.setPointerCapture = () => {}; // of a pointer that no device made
  page.pause(); page.paint();
  found.before = page.points.length;
  pointer("pointerdown", 4.2, -4.2); pointer("pointerup", 4.2, -4.2);
  found.added = page.points.length;
  pointer("pointerdown", 4.2, -4.2); pointer("pointermove", 3, -3); pointer("pointerup", 3, -3);
  found.dragged = [page.points.at(-1).x, page.points.at(-1).y];
  press("Escape", "n", "f");
  found.forgotten = page.points[0].forgotten; found.arm = page.settings.arm;
  const x = page.points[0].x;
  press("Enter", "ArrowRight", "ArrowRight", "Enter");
  found.moved = page.points[0].x - x;
  press("3");
  found.colour = page.points[0].colour;
  press("d");
  found.doubled = page.points.length;
  press("Delete");
  found.removed = page.points.length;
  plane.dispatchEvent(new KeyboardEvent("keydown", { key: "z", ctrlKey: true, bubbles: true, cancelable: true }));
  found.undone = page.points.length;
  await rest(900);
  found.said = live.textContent;
  found.label = plane.getAttribute("aria-label");
  const h = page.parts.h;
  h.value = "0.8"; h.dispatchEvent(new Event("input")); h.dispatchEvent(new Event("change"));
  found.h = page.settings.h;
  found.u = page.u;
  const pixels = plane.getContext("2d").getImageData(0, 0, plane.width, plane.height).data;
  found.painted = pixels.some((value) => value);
  found.outside = performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith("file:"));
  found.wide = document.documentElement.scrollWidth - innerWidth;
  return found;
}
