"use strict";
const specs = JSON.parse(document.getElementById("specs").textContent);

function draw() {
  for (const [id, spec] of Object.entries(specs)) embed(document.getElementById(id), spec);
}

function filter() {
  const query = document.getElementById("query").value.toLowerCase();
  const verdict = document.getElementById("verdict").value;
  let matches = 0;
  for (const entry of document.querySelectorAll("#trajectories details")) {
    const isMatch = (!verdict || entry.dataset.verdict === verdict) && entry.textContent.toLowerCase().includes(query);
    entry.hidden = !isMatch;
    matches += isMatch;
  }
  document.getElementById("matches").textContent = `${matches} shown`;
}

draw();
dark.addEventListener("change", draw);
const form = document.getElementById("filter");
if (form) {
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
}
