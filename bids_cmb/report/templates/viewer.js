/* Scrolling through a scan that the page carries: three planes, a cross, outlines of the microbleeds. */
"use strict";
(() => {
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  /* Axis that runs to the right, axis that runs down, axis across the plane; all run from high to low. */
  const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };

  const start = async (box) => {
    const volume = JSON.parse(document.getElementById(`volume-${box.dataset.viewer}`).textContent);
    const [image, labels] = await Promise.all([unpack(volume.image), unpack(volume.labels)]);
    const [nx, ny, nz] = volume.shape;
    const steps = [ny * nz, nz, 1];
    const cross = [nx >> 1, ny >> 1, nz >> 1];
    const canvases = [...box.querySelectorAll("canvas")];
    const place = box.querySelector("[data-place]");
    const outlined = () => document.documentElement.dataset.outline !== "off";
    const draw = () => {
      for (const canvas of canvases) {
        const [right, down, through] = PLANES[canvas.dataset.plane];
        const [w, h] = [volume.shape[right], volume.shape[down]];
        canvas.width = w;
        canvas.height = h;
        const context = canvas.getContext("2d");
        const picture = context.createImageData(w, h);
        const base = cross[through] * steps[through];
        for (let v = 0; v < h; v += 1) {
          for (let u = 0; u < w; u += 1) {
            const at = base + (w - 1 - u) * steps[right] + (h - 1 - v) * steps[down];
            const pixel = 4 * (v * w + u);
            const edge = labels[at] && outlined() && (u === 0 || v === 0 || u === w - 1 || v === h - 1 || !labels[at + steps[right]] || !labels[at - steps[right]] || !labels[at + steps[down]] || !labels[at - steps[down]]);
            picture.data[pixel] = edge ? 255 : image[at];
            picture.data[pixel + 1] = edge ? 154 : image[at];
            picture.data[pixel + 2] = edge ? 61 : image[at];
            picture.data[pixel + 3] = 255;
          }
        }
        context.putImageData(picture, 0, 0);
        const frame = canvas.closest(".frame");
        frame.style.aspectRatio = `${w * volume.zooms[right]} / ${h * volume.zooms[down]}`;
        frame.querySelector(".down").style.left = `${(100 * (w - 0.5 - cross[right])) / w}%`;
        frame.querySelector(".across").style.top = `${(100 * (h - 0.5 - cross[down])) / h}%`;
      }
      const [x, y, z] = times(volume.affine, cross);
      place.textContent = `${[x, y, z].map((n) => n.toFixed(1)).join(", ")} mm`;
      box.dataset.cross = cross.join(" ");
    };
    const move = (axis, to) => { cross[axis] = Math.min(Math.max(to, 0), volume.shape[axis] - 1); };
    for (const canvas of canvases) {
      const [right, down, through] = PLANES[canvas.dataset.plane];
      canvas.addEventListener("wheel", (event) => { event.preventDefault(); move(through, cross[through] - Math.sign(event.deltaY)); draw(); }, { passive: false });
      canvas.addEventListener("click", (event) => {
        const { left, top, width, height } = canvas.getBoundingClientRect();
        let across = (event.clientX - left) / width;
        if (document.documentElement.dataset.side === "neurological" && canvas.dataset.plane !== "sagittal") across = 1 - across;
        move(right, volume.shape[right] - 1 - Math.floor(across * volume.shape[right]));
        move(down, volume.shape[down] - 1 - Math.floor(((event.clientY - top) / height) * volume.shape[down]));
        draw();
      });
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        move(through, cross[through] + step);
        draw();
      });
    }
    const go = box.querySelector("[data-go]");
    if (go) {
      go.addEventListener("change", () => {
        const found = go.value === "" ? null : volume.numbers[Number(go.value)];
        if (!found || found[1].some((n) => n === null)) return;
        times(volume.to_voxel, found[1]).forEach((value, axis) => move(axis, Math.round(value)));
        draw();
      });
    }
    box.querySelector("[data-here]").addEventListener("click", () => {
      const form = document.getElementById("add-missed");
      form.elements.scan.value = box.dataset.viewer;
      form.elements.unit.value = "mm";
      const mm = times(volume.affine, cross);
      ["x", "y", "z"].forEach((name, axis) => { form.elements[name].value = mm[axis].toFixed(1); });
      form.scrollIntoView({ block: "center" });
      form.elements.notes.focus({ preventScroll: true });
    });
    document.addEventListener("click", (event) => { if (event.target.closest("[data-toggle=outline]")) setTimeout(draw); });
    draw();
  };
  for (const box of document.querySelectorAll("[data-viewer]")) {
    const open = () => { if (box.open && !box.dataset.cross) { box.dataset.cross = "-"; start(box); } };
    box.addEventListener("toggle", open);
  }
})();
