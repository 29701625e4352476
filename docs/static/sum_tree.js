// The sum tree of the theory page, to play with: 16 rows, four to a node.
// Knows masses, sums and one search through them; everything is drawn into div#sum-tree.
"use strict";

(() => {
  const ROWS = 16, FANOUT = 4;
  const WIDTH = 640, CELL = WIDTH / ROWS, BARS = 70, TOP = 4, GAP = 58, HIGH = 26;
  const LEAVES = TOP + 2 * GAP;
  const BASE = LEAVES + HIGH + 18 + BARS; // below it hang the counts

  // Absolute TD errors, one for each row; the slider changes that of the chosen row.
  const errors = [3, 0.2, 2, 1, 0.1, 4, 1, 2, 0.3, 1, 5, 0.1, 2, 0.4, 1, 3];
  const state = {law: "proportional", alpha: 0.6, beta: 0.4, row: 10, path: null, point: 0};
  let counts = new Array(ROWS).fill(0);

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const short = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

  // A row's share of the draws is its mass, over the sum of all masses.
  function masses() {
    if (state.law === "proportional") return errors.map((error) => error ** state.alpha);
    // Rows of equal error share the masses of the ranks that they hold.
    return errors.map((error) => {
      const larger = errors.filter((other) => other > error).length;
      const equal = errors.filter((other) => other === error).length;
      const ranks = Array.from({length: equal}, (_, k) => larger + 1 + k);
      return sum(ranks.map((rank) => rank ** -state.alpha)) / equal;
    });
  }

  // The levels of the tree, from the total down to the masses of the rows.
  function tree() {
    const levels = [masses()];
    while (levels[0].length > 1) {
      const below = levels[0];
      const nodes = Array.from({length: below.length / FANOUT}, (_, k) => k);
      levels.unshift(nodes.map((k) => sum(below.slice(k * FANOUT, (k + 1) * FANOUT))));
    }
    return levels;
  }

  // Find the row in whose share a point lies: at each level, pass the children that end before it.
  function find(levels, point) {
    const path = [0];
    for (const level of levels.slice(1)) {
      let child = path.at(-1) * FANOUT;
      const last = child + FANOUT - 1;
      while (child < last && point >= level[child]) point -= level[child++];
      path.push(child);
    }
    return path;
  }

  function draw(times) {
    const levels = tree();
    for (let k = 0; k < times; k++) {
      state.point = Math.random() * levels[0][0];
      state.path = find(levels, state.point);
      counts[state.path.at(-1)]++;
    }
    show();
  }

  function node(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function show() {
    const levels = tree(), total = levels[0][0], leaves = levels.at(-1);
    const drawn = sum(counts), largest = Math.max(...leaves) / total;
    const parts = [];
    levels.forEach((level, depth) => {
      const span = WIDTH / level.length;
      level.forEach((mass, k) => {
        const x = (k + 0.5) * span, y = TOP + depth * GAP;
        const onPath = state.path !== null && state.path[depth] === k;
        if (depth) {
          const from = (Math.floor(k / FANOUT) + 0.5) * span * FANOUT;
          const ends = {x1: from, y1: y - GAP + HIGH, x2: x, y2: y};
          parts.unshift(node("line", {...ends, class: onPath ? "edge found" : "edge"}));
        }
        const wide = depth ? Math.min(span - 4, 76) : 76;
        const box = {x: x - wide / 2, y, width: wide, height: HIGH, rx: 4};
        parts.push(node("rect", {...box, class: onPath ? "cell found" : "cell"}));
        parts.push(node("text", {x, y: y + HIGH / 2 + 4}, mass.toFixed(2)));
      });
    });
    leaves.forEach((mass, k) => {
      const x = (k + 0.5) * CELL;
      const law = (BARS * mass) / total / largest;
      const seen = drawn ? Math.min((BARS * counts[k]) / drawn / largest, 1.4 * BARS) : 0;
      parts.push(node("rect", {x: x - 13, y: BASE - law, width: 12, height: law, class: "law"}));
      parts.push(node("rect", {x: x + 1, y: BASE - seen, width: 12, height: seen, class: "seen"}));
      parts.push(node("text", {x, y: BASE + 16, class: k === state.row ? "chosen" : ""}, k));
      const touch = node("rect", {
        x: k * CELL, y: LEAVES, width: CELL, height: BASE + 22 - LEAVES, class: "touch",
        tabindex: 0, role: "button", "aria-label": `row ${k}`,
      });
      touch.append(node("title", {}, `row ${k}: TD error ${errors[k]}, P = ${short(mass / total)}`));
      const choose = () => { state.row = k; show(); };
      touch.addEventListener("click", choose);
      touch.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
      parts.push(touch);
    });
    picture.replaceChildren(...parts);

    const probability = leaves[state.row] / total;
    const weight = (p) => (ROWS * p) ** -state.beta;
    const most = Math.max(...leaves.map((mass) => weight(mass / total)));
    inputs.error.value = errors[state.row];
    outputs.alpha.textContent = state.alpha.toFixed(2);
    outputs.beta.textContent = state.beta.toFixed(2);
    outputs.error.textContent = `row ${state.row}: ${errors[state.row].toFixed(1)}`;
    const found = state.path === null ? "" :
      `The last point was ${short(state.point)} of ${short(total)}: row ${state.path.at(-1)}. `;
    said.textContent = `${found}Row ${state.row} has P = ${short(probability)} and the weight ` +
      `${short(weight(probability) / most)} of at most 1. It was drawn ${counts[state.row]} ` +
      `times of ${drawn}, expected ${short(probability * drawn)}.`;
  }

  function slider(name, label, low, high, step, take) {
    const line = document.createElement("label"), input = document.createElement("input");
    const output = document.createElement("output");
    Object.assign(input, {type: "range", min: low, max: high, step, value: state[name] ?? 1});
    input.addEventListener("input", () => {
      take(Number(input.value));
      restart();
    });
    line.append(`${label} `, input, " ", output);
    inputs[name] = input;
    outputs[name] = output;
    return line;
  }

  function button(label, act) {
    const made = document.createElement("button");
    Object.assign(made, {type: "button", textContent: label});
    made.addEventListener("click", act);
    return made;
  }

  // Counts of another law would mean nothing.
  function restart() {
    counts = new Array(ROWS).fill(0);
    state.path = null;
    show();
  }

  const place = document.getElementById("sum-tree");
  if (place === null) return;
  const inputs = {}, outputs = {};
  const picture = node("svg", {viewBox: `0 0 ${WIDTH} ${BASE + 24}`, role: "img"});
  picture.setAttribute("aria-label", "A sum tree of 16 rows: masses, their sums, and how often drawn");
  const said = document.createElement("p");
  said.setAttribute("aria-live", "polite");
  const law = document.createElement("select");
  law.setAttribute("aria-label", "law");
  for (const name of ["proportional", "rank-based"]) law.add(new Option(name, name));
  law.addEventListener("change", () => { state.law = law.value; restart(); });
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.append(
    law,
    slider("alpha", "alpha", 0, 1.5, 0.05, (value) => { state.alpha = value; }),
    slider("beta", "beta", 0, 1, 0.05, (value) => { state.beta = value; }),
    slider("error", "TD error of", 0.1, 10, 0.1, (value) => { errors[state.row] = value; }),
    button("draw one", () => draw(1)),
    button("draw 1,000", () => draw(1000)),
    button("start again", restart),
  );
  const scroll = document.createElement("div");
  scroll.className = "picture";
  scroll.append(picture);
  place.replaceChildren(controls, scroll, said);
  show();
})();
