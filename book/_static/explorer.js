// The explorer: paired differences as a forest plot, and images masked by their maps.
// Everything is in the page; the address behind # holds what is chosen, so that a view can be linked.
(() => {
  "use strict";
  const root = document.getElementById("comparison");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const at = (name) => root.querySelector(`[name="${name}"]`);
  const part = (name) => root.querySelector(`.${name}`);

  function element(tag, attributes = {}, text = "") {
    const of = tag.startsWith("svg:") ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const made = document.createElementNS(of, tag.replace("svg:", ""));
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  }

  // Fills a select with [value, text, group]; chosen is what the state says, if it is among them.
  function choose(name, options, fallback) {
    const select = at(name);
    const groups = new Map();
    for (const [value, text, label] of options) {
      if (!groups.has(label)) groups.set(label, label ? element("optgroup", { label }) : document.createDocumentFragment());
      groups.get(label).append(element("option", { value }, text));
    }
    select.replaceChildren(...groups.values());
    const known = options.map(([value]) => String(value));
    const wanted = [state[name], fallback, known[0]].find((value) => known.includes(String(value)));
    select.value = state[name] = String(wanted);
  }

  const rounded = (value) => (Math.abs(value) < 0.05 ? "0.0" : value.toFixed(1)).replace("-", "−");
  const signed = (value) => (value >= 0.05 ? "+" : "") + rounded(value);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const chance = (p) => (p < 0.001 ? "< 0.001" : p < 0.0995 ? p.toFixed(3) : p.toFixed(2));

  // ---- the forest plot ----------------------------------------------------------------------

  function chosenRows() {
    choose("classifier", data.sets.map(({ key, name, of }) => [key, name, of]));
    const set = data.sets.find(({ key }) => key === state.classifier);
    choose("measure", set.measures.map(({ key, label }) => [key, label]));
    const measure = set.measures.find(({ key }) => key === state.measure);
    choose("v", measure.cells.map(({ v, label }) => [v, label]), measure.fallback);
    const cell = measure.cells.find(({ v }) => String(v) === state.v);
    const found = new Set(cell.rows.flatMap(([first, second]) => [first, second]));
    choose("reference", set.methods.map((name) => [name, name]).filter((_, i) => found.has(i)));
    const reference = set.methods.indexOf(state.reference);
    const rows = cell.rows
      .filter(([first, second]) => first === reference || second === reference)
      .map(([first, second, n, difference, low, high, p]) => {
        const other = set.methods[first === reference ? second : first];
        const own = first === reference ? [difference, low, high] : [-difference, -high, -low];
        const side = p >= 0.05 ? 0 : Math.sign(own[0]) * measure.direction;
        return { other, n, p, side, own, group: groupOf(set, other) };
      })
      // groups are one below the other; in each the reference's clearest win comes first
      .sort((a, b) => a.group - b.group || measure.direction * (b.own[0] - a.own[0]));
    return { set, measure, cell, rows };
  }

  // Rivals, T-TAME with its variants, controls: in this order they are listed.
  const GROUPS = ["Rivals", "T-TAME", "Controls"];
  const groupOf = (set, name) => (set.own.includes(name) ? 1 : set.controls.includes(name) ? 2 : 0);

  // Of T-TAME only the others are rivals; of another method, T-TAME and its variants are too.
  function rivalsOf(set, rows) {
    return rows.filter(({ group }) => group === 0 || (group === 1 && groupOf(set, state.reference) !== 1));
  }

  function tellForest({ set, measure, cell, rows }) {
    const rivals = rivalsOf(set, rows);
    const count = (side) => rivals.filter((row) => row.side === side).length;
    const title = cell.title.replace(/ [↓↑]$/, "");
    const images = rows.map(({ n }) => n);
    const [fewest, most] = [Math.min(...images), Math.max(...images)];
    const n = fewest === most ? `${most}` : `${fewest} to ${most}`;
    return (
      `${state.reference} on ${set.name}, ${title}: better than ${count(1)} of ${rivals.length} rivals, ` +
      `level with ${count(0)} and worse than ${count(-1)}. n = ${n} images.`
    );
  }

  function drawForest() {
    const found = chosenRows();
    const { measure, rows } = found;
    const width = Math.max(300, Math.floor(part("forest").clientWidth));
    const narrow = width < 560; // names above their intervals, not beside them
    const [left, right] = narrow ? [8, width - 8] : [196, width - 140];
    const [high, top] = [narrow ? 46 : 26, 46];
    const places = []; // the middle of each row's interval
    const heads = []; // where a group that is not the first begins
    let bottom = top;
    rows.forEach(({ group }, i) => {
      if (i && group !== rows[i - 1].group) {
        heads.push([GROUPS[group], bottom + 20]);
        bottom += 28;
      }
      places.push(bottom + (narrow ? 34 : high / 2));
      bottom += high;
    });
    // on a narrow screen the words are above the intervals: no line goes through them
    const strips = narrow ? places.map((y) => [y - 9, y + 9]) : [[top - 4, bottom]];
    const height = bottom + 42;
    const ends = rows.flatMap(({ own }) => own.filter(Number.isFinite)).concat(0);
    const [low, up] = [Math.min(...ends), Math.max(...ends)];
    const room = 0.04 * (up - low || 1);
    const x = (value) => left + ((value - low + room) / (up - low + 2 * room)) * (right - left);
    const svg = element("svg:svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": "forest-finding" });
    svg.append(element("svg:title", { id: "forest-finding" }, tellForest(found)));
    const add = (tag, attributes, text) => svg.append(element(`svg:${tag}`, attributes, text));
    const words = (text, x, y, anchor, kind = "") => add("text", { x, y, "text-anchor": anchor, class: kind }, text);

    const upright = (value, kind) => {
      for (const [y1, y2] of strips) add("line", { x1: x(value), x2: x(value), y1, y2, class: kind });
    };
    const step = niceStep((up - low) / (narrow ? 3 : 6) || 1);
    for (let i = Math.ceil((low - room) / step); i * step <= up + room; i++) {
      upright(i * step, "grid");
      words(`${+(i * step).toFixed(6)}`.replace("-", "−"), x(i * step), bottom + 16, "middle", "tick");
    }
    upright(0, "zero");
    const sides = [`${state.reference} better`, "the other better"];
    if (measure.direction > 0) sides.reverse();
    words(`← ${sides[0]}`, left, 18, "start", "side");
    words(`${sides[1]} →`, right, 18, "end", "side");
    if (!narrow) {
      words("n", width - 90, 18, "end", "side");
      words("p", width - 4, 18, "end", "side");
    }
    words(`${state.reference} minus the other, percentage points`, (left + right) / 2, height - 5, "middle", "tick");

    for (const [name, y] of heads) words(name, narrow ? left : left - 12, y, narrow ? "start" : "end", "side");
    rows.forEach((row, i) => {
      const y = places[i];
      const [middle, from, to] = row.own;
      if (narrow) {
        words(row.other, left, y - 14, "start");
        words(`p ${row.p < 0.001 ? "" : "= "}${chance(row.p)}`, right, y - 14, "end", "tick");
      } else {
        words(row.other, left - 12, y + 4, "end");
        words(row.n, width - 90, y + 4, "end", "tick");
        words(chance(row.p), width - 4, y + 4, "end", "tick");
      }
      if (Number.isFinite(from)) add("line", { x1: x(from), x2: x(to), y1: y, y2: y, class: "interval" });
      add("circle", { cx: x(middle), cy: y, r: 5, class: row.side ? "mark proven" : "mark" });
    });
    part("forest").replaceChildren(svg);
    part("finding").textContent = tellForest(found);
    part("numbers").replaceChildren(
      ...rows.map(({ other, n, p, side, own: [difference, from, to] }) => {
        const outcome = side ? `${state.reference} is ${side > 0 ? "better" : "worse"}` : "level";
        const interval = Number.isFinite(from) ? `${signed(from)} to ${signed(to)}` : "";
        const line = element("tr");
        line.append(element("th", { scope: "row" }, other));
        for (const text of [outcome, signed(difference), interval, n, chance(p)]) line.append(element("td", {}, text));
        return line;
      }),
    );
  }

  function niceStep(rough) {
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  }

  // ---- maps into masks, as ttame_core.masking makes them ------------------------------------

  // Where a pixel of the enlarged map reads: bilinear, align_corners=False, clamped at the edges.
  function places(large, small) {
    return Array.from({ length: large }, (_, i) => {
      const source = Math.max(0, ((i + 0.5) * small) / large - 0.5);
      const first = Math.min(Math.floor(source), small - 1);
      return [first, Math.min(first + 1, small - 1), source - first];
    });
  }

  // The map at the image's size, scaled to [0, 1] again unless it is the same everywhere.
  function enlarged([rgba, w, h], width, height) {
    const small = rgba.filter((_, i) => i % 4 === 0); // red, green and blue of a map are one
    const [down, across] = [places(height, h), places(width, w)];
    const large = new Float64Array(height * width);
    let [low, high] = [Infinity, -Infinity];
    for (let i = 0; i < large.length; i++) {
      const [y, below, s] = down[Math.floor(i / width)];
      const [x, beside, t] = across[i % width];
      const upper = small[y * w + x] + t * (small[y * w + beside] - small[y * w + x]);
      const lower = small[below * w + x] + t * (small[below * w + beside] - small[below * w + x]);
      large[i] = (upper + s * (lower - upper)) / 255;
      low = Math.min(low, large[i]);
      high = Math.max(high, large[i]);
    }
    return high > low ? large.map((value) => (value - low) / (high - low)) : large;
  }

  // The top v % of a map at its soft values, 0 elsewhere; exactly so many pixels. Which of equal
  // values are among them is left to the order of the sort: there the notebooks draw lots.
  function keepTop(map, v) {
    const order = Array.from(map.keys()).sort((a, b) => map[b] - map[a]);
    const kept = new Float64Array(map.length);
    for (const i of order.slice(0, Math.round((v / 100) * map.length))) kept[i] = map[i];
    return kept;
  }

  function paint(canvas, width, height, colour) {
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) pixels.data.set([...colour(i), 255], 4 * i);
    context.putImageData(pixels, 0, 0);
  }

  function mapColour(value) {
    const place = value * (data.colours.length - 1);
    const first = Math.min(Math.floor(place), data.colours.length - 2);
    const [from, to] = [data.colours[first], data.colours[first + 1]];
    return from.map((part, c) => part + (place - first) * (to[c] - part));
  }

  // ---- images, maps, masked images ----------------------------------------------------------

  const pictures = new Map(); // by their data URI: [pixels, width, height] once it is decoded

  function decode(source) {
    if (!pictures.has(source)) {
      pictures.set(source, new Promise((resolve) => {
        const picture = new Image();
        picture.onload = () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
          const context = canvas.getContext("2d");
          context.drawImage(picture, 0, 0);
          resolve([context.getImageData(0, 0, picture.width, picture.height).data, picture.width, picture.height]);
        };
        picture.src = source;
      }));
    }
    return pictures.get(source);
  }

  function chosenImage() {
    const all = data.explored.classifiers;
    choose("shown", Object.keys(all).map((name) => [name, name]));
    const of = all[state.shown];
    choose("image", of.images.map(({ name }, i) => [i, `${i + 1}: ${name}`]));
    const image = of.images[Number(state.image)];
    const names = Object.keys(image.methods).map((name) => [name, name]);
    choose("method", names);
    choose("second", [["none", "none"], ...names.filter(([name]) => name !== state.method)], "RISE");
    choose("class", image.classes.map(({ name }, i) => [i, `${name} (${["predicted", "runner-up"][i]})`]));
    state.keep = String(Math.min(100, Math.max(1, Math.round(Number(state.keep)) || 15)));
    at("keep").value = state.keep;
    return { of, image };
  }

  async function drawImage() {
    const { of, image } = chosenImage();
    const v = Number(state.keep);
    const { shares } = data.explored;
    const nearest = shares.reduce((best, each) => (Math.abs(each - v) < Math.abs(best - v) ? each : best));
    part("share").textContent = `${v} %`;
    part("note-on-images").textContent = of.note;
    const { name, before } = image.classes[Number(state.class)];
    const [pixels, width, height] = await decode(image.picture);
    const told = [];
    for (const [row, method] of [["first", state.method], ["second", state.second]]) {
      const place = part(`pictures.${row}`);
      place.hidden = method === "none";
      if (place.hidden) continue;
      const found = image.methods[method][Number(state.class)];
      const map = enlarged(await decode(found.map), width, height);
      const mask = keepTop(map, v);
      const after = found.left[shares.indexOf(nearest)];
      const rgb = (i) => [pixels[4 * i], pixels[4 * i + 1], pixels[4 * i + 2]];
      // what a CNN does not see is black, what a transformer does not see the mean colour
      const hidden = of.masking === "image" ? [0, 0, 0] : of.mean.map((each) => 255 * each);
      const masked = (i) => rgb(i).map((each, c) => hidden[c] + mask[i] * (each - hidden[c]));
      const show = (kind, colour, label, caption) => {
        const picture = place.querySelector(`.${kind}`);
        const canvas = picture.querySelector("canvas");
        paint(canvas, width, height, colour);
        canvas.setAttribute("aria-label", label);
        picture.querySelector(".caption").textContent = caption;
      };
      show("image", rgb, `Image ${image.name}`, `image: confidence ${percent(before)}`);
      show("map", (i) => mapColour(map[i]), `Map of ${method} for ${name}`, `map of ${method}`);
      show("masked", masked, `The image masked by the top ${v} % of the map of ${method}`, `top ${v} %: ${percent(after)}${nearest === v ? "" : ` at ${nearest} %`}`);
      told.push(`${method}: ${percent(before)} before, ${percent(after)} after`);
    }
    const where = nearest === v ? `at v = ${v} %` : `at v = ${nearest} %, the nearest to ${v} % that was computed`;
    part("confidences").textContent = `Confidence in “${name}”. ${told.join("; ")} masking (${where}).`;
    root.dataset.drawn = JSON.stringify(state);
  }

  // ---- what is chosen -----------------------------------------------------------------------

  function draw() {
    drawForest();
    if (data.explored) return drawImage();
    root.dataset.drawn = JSON.stringify(state);
  }

  if (data.explored) {
    part("images").hidden = false;
    part("bar").style.background = `linear-gradient(to right, ${data.colours.map((c) => `rgb(${c})`)})`;
  }
  root.addEventListener("input", ({ target }) => {
    if (!target.name) return;
    state[target.name] = target.value;
    draw();
    history.replaceState(null, "", `#${new URLSearchParams(state)}`);
  });
  addEventListener("hashchange", () => {
    Object.assign(state, Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
    draw();
  });
  let drawnWidth = part("forest").clientWidth;
  addEventListener("resize", () => {
    if (part("forest").clientWidth === drawnWidth) return;
    drawnWidth = part("forest").clientWidth;
    drawForest();
  });
  draw();
})();
