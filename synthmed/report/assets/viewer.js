"use strict";
(() => {
  const PLANES = [
    { id: "sagittal", axis: 0, across: 1, up: 2, ends: ["P", "A"] },
    { id: "coronal", axis: 1, across: 0, up: 2, ends: ["L", "R"] },
    { id: "axial", axis: 2, across: 0, up: 1, ends: ["L", "R"] },
  ];
  const LONGEST = 320;
  const MOST_LISTED = 12;
  const byId = (id) => document.getElementById(id);
  const holder = byId("previews");

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  if (!holder || typeof DecompressionStream === "undefined") return;

  const { volumes, labels } = JSON.parse(holder.textContent);
  const names = new Map(labels.map((l) => [l.value, l.name]));
  const colours = new Map(labels.map((l) => [l.value, [1, 3, 5].map((k) => parseInt(l.colour.slice(k, k + 2), 16))]));
  const state = { index: 0, at: [0, 0, 0], image: null, label: null };
  const overlay = byId("overlay");
  const opacity = byId("opacity");

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function pixels(plane, volume) {
    const [width, height] = [volume.shape[plane.across], volume.shape[plane.up]];
    const strides = [1, volume.shape[0], volume.shape[0] * volume.shape[1]];
    const start = state.at[plane.axis] * strides[plane.axis];
    const share = overlay && overlay.checked ? Number(opacity.value) / 100 : 0;
    const out = new ImageData(width, height);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const voxel = start + x * strides[plane.across] + (height - 1 - y) * strides[plane.up];
        const grey = state.image[voxel];
        const colour = share && state.label ? colours.get(state.label[voxel]) : undefined;
        for (let c = 0; c < 3; c += 1) {
          out.data[4 * (y * width + x) + c] = colour ? (1 - share) * grey + share * colour[c] : grey;
        }
        out.data[4 * (y * width + x) + 3] = 255;
      }
    }
    return out;
  }

  function marks(context, plane, volume, canvas) {
    const column = ((state.at[plane.across] + 0.5) / volume.shape[plane.across]) * canvas.width;
    const row = (1 - (state.at[plane.up] + 0.5) / volume.shape[plane.up]) * canvas.height;
    context.strokeStyle = "rgba(255, 255, 255, 0.35)";
    context.beginPath();
    context.moveTo(column, 0);
    context.lineTo(column, canvas.height);
    context.moveTo(0, row);
    context.lineTo(canvas.width, row);
    context.stroke();
    context.fillStyle = "#ffffff";
    context.font = "14px sans-serif";
    context.fillText(plane.ends[0], 4, canvas.height / 2 - 6);
    context.fillText(plane.ends[1], canvas.width - 16, canvas.height / 2 - 6);
  }

  function draw() {
    const volume = volumes[state.index];
    const longest = Math.max(...volume.shape.map((side, axis) => side * volume.spacing[axis]));
    for (const plane of PLANES) {
      const canvas = byId(plane.id);
      const size = (axis) => Math.max(1, Math.round((volume.shape[axis] * volume.spacing[axis] * LONGEST) / longest));
      [canvas.width, canvas.height] = [size(plane.across), size(plane.up)];
      const picture = pixels(plane, volume);
      const small = document.createElement("canvas");
      [small.width, small.height] = [picture.width, picture.height];
      small.getContext("2d").putImageData(picture, 0, 0);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      marks(context, plane, volume, canvas);
      const slider = byId(`${plane.id}-slice`);
      slider.max = volume.shape[plane.axis] - 1;
      slider.value = state.at[plane.axis];
      const where = `slice ${state.at[plane.axis] + 1} of ${volume.shape[plane.axis]}`;
      slider.setAttribute("aria-valuetext", where);
      canvas.setAttribute("aria-label", `${plane.id} plane of ${volume.name}, ${where}`);
    }
    if (overlay && state.label) tell();
  }

  function tell() {
    const [i, j] = volumes[state.index].shape;
    const value = state.label[state.at[0] + i * (state.at[1] + j * state.at[2])];
    byId("here").textContent = `At the cross: ${names.get(value) ?? "background"}`;
  }

  async function show(index) {
    const wanted = (index + volumes.length) % volumes.length;
    const volume = volumes[wanted];
    state.index = wanted;
    const [image, label] = await Promise.all([unpack(volume.image), volume.label ? unpack(volume.label) : null]);
    if (state.index !== wanted) return;
    Object.assign(state, { image, label, at: [...volume.at] });
    byId("volume").value = String(wanted);
    draw();
    byId("status").textContent = `${volume.name}: volume ${wanted + 1} of ${volumes.length}`;
  }

  function move(axis, to) {
    const last = volumes[state.index].shape[axis] - 1;
    state.at[axis] = Math.min(last, Math.max(0, to));
    draw();
  }

  function point(plane, canvas, event) {
    const volume = volumes[state.index];
    const box = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    move(plane.across, Math.floor(x * volume.shape[plane.across]));
    move(plane.up, Math.floor(y * volume.shape[plane.up]));
  }

  function toggle() {
    if (!overlay) return;
    overlay.checked = !overlay.checked;
    draw();
    byId("status").textContent = overlay.checked ? "Labels shown" : "Labels hidden";
  }

  function listen() {
    byId("previous").addEventListener("click", () => show(state.index - 1));
    byId("next").addEventListener("click", () => show(state.index + 1));
    byId("volume").addEventListener("change", (event) => show(Number(event.target.value)));
    if (overlay) {
      overlay.addEventListener("change", draw);
      opacity.addEventListener("input", draw);
    }
    for (const plane of PLANES) {
      const canvas = byId(plane.id);
      byId(`${plane.id}-slice`).addEventListener("input", (event) => move(plane.axis, Number(event.target.value)));
      canvas.addEventListener("pointerdown", (event) => point(plane, canvas, event));
      canvas.addEventListener("pointermove", (event) => event.buttons && point(plane, canvas, event));
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        move(plane.axis, state.at[plane.axis] - Math.sign(event.deltaY));
      }, { passive: false });
    }
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const actions = { n: () => show(state.index + 1), p: () => show(state.index - 1), o: toggle };
      const action = actions[event.key.toLowerCase()];
      if (action) action();
    });
  }

  function fill() {
    volumes.forEach((volume, index) => byId("volume").add(new Option(volume.name, String(index))));
    if (!overlay) return;
    byId("legend").open = labels.length <= MOST_LISTED;
    for (const label of labels) {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.backgroundColor = label.colour;
      item.append(swatch, label.name);
      byId("structures").append(item);
    }
  }

  fill();
  listen();
  byId("viewer").hidden = false;
  byId("keys").hidden = false;
  show(0);
})();
