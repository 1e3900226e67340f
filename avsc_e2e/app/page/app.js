"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const make = (tag, className = "", text = "") => Object.assign(document.createElement(tag), {className, textContent: text});
const percent = value => `${Math.round(100 * value)} %`;
const clock = seconds => seconds >= 60 ? `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}` : `${seconds.toFixed(1)} s`;
const SHOWN = 6, RECORD = 60;
const player = $("#player");
let views = [], running = null, url = "", limits = {};

fetch("about").then(answer => answer.json()).then(about => {
  limits = about.limits;
  $("#about").textContent = `Model${about.models.length > 1 ? "s" : ""}: ${about.models.join(", ")}. Up to ${limits.size} MB and ` +
    `${limits.length} s. Recordings are predicted on this server and then deleted.`;
  for (const name of about.examples) {
    const button = make("button", "", name.replace(/\.[^.]*$/, "").replaceAll("_", " "));
    button.onclick = async () => {
      say(`fetching ${name}`);
      send(await (await fetch(`examples/${encodeURIComponent(name)}`)).blob(), name);
    };
    $("#examples").append(button);
    $("#examples").hidden = false;
  }
});

function say(text, error = false) {
  $("#status").textContent = text;
  $("#status").classList.toggle("error", error);
}

$("#file").onchange = event => { if (event.target.files[0]) send(event.target.files[0], event.target.files[0].name); event.target.value = ""; };
const drop = $("#drop");
for (const [type, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  document.addEventListener(type, event => { event.preventDefault(); drop.classList.toggle("over", over); });
document.addEventListener("drop", event => { const file = event.dataTransfer.files[0]; if (file) send(file, file.name); });

async function record(button, constraints) {
  if (button.end) return button.end();
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia(constraints); }
  catch (error) { return say(`no recording: ${error.message || "camera and microphone need https or localhost"}`, true); }
  const parts = [], recorder = new MediaRecorder(stream), label = button.textContent;
  if (constraints.video) { $("#result").hidden = false; $("#models").textContent = ""; views = []; show(null, "", stream); }
  let ending = false;  // an encoder that has not begun gives an empty recording
  button.end = () => { ending = true; if (parts.length && recorder.state === "recording") recorder.stop(); };
  recorder.ondataavailable = event => { if (event.data.size) parts.push(event.data); if (ending) button.end?.(); };
  const begin = Date.now();
  const tick = setInterval(() => {
    const seconds = Math.round((Date.now() - begin) / 1000);
    button.textContent = `Stop (${seconds} s)`;
    if (seconds >= Math.min(RECORD, limits.length || RECORD)) button.end();
  }, 250);
  recorder.onstop = () => {
    clearInterval(tick);
    stream.getTracks().forEach(track => track.stop());
    Object.assign(button, {end: null, textContent: label, ariaPressed: "false"});
    const kind = constraints.video ? "camera" : "microphone", mp4 = recorder.mimeType.includes("mp4");
    send(new Blob(parts, {type: recorder.mimeType}), kind + (mp4 ? ".mp4" : ".webm"));
  };
  button.ariaPressed = "true";
  button.textContent = "Stop (0 s)";
  recorder.start(500);
}
$("#camera").onclick = event => record(event.target, {video: true, audio: true});
$("#microphone").onclick = event => record(event.target, {audio: true});

function show(blob, name, stream = null) {
  if (url) URL.revokeObjectURL(url);
  url = blob ? URL.createObjectURL(blob) : "";
  player.srcObject = stream;
  if (url) { player.src = url; player.muted = false; } else { player.muted = true; player.play(); }
  $("#stage").classList.toggle("heard", /\.(wav|mp3|flac|ogg|opus|m4a|aac|weba|aiff?)$/i.test(name) || name === "microphone.webm");
  player.hidden = false;
  $("#unplayable").hidden = true;
}
player.onerror = () => { if (player.src) { player.hidden = true; $("#unplayable").hidden = false; } };

async function send(blob, name) {
  if (running) running.abort();
  const mine = running = new AbortController();
  if (limits.size && blob.size > limits.size * 1e6) return say(`${name}: the file is larger than ${limits.size} MB, which are allowed`, true);
  $("#models").textContent = "";
  views = [];
  $("#result").hidden = false;
  show(blob, name);
  say(`${name}: uploading`);
  const bar = $("#progress");
  bar.hidden = false; bar.removeAttribute("value");
  try {
    const answer = await fetch(`predict?name=${encodeURIComponent(name)}`, {method: "POST", body: blob, signal: mine.signal});
    if (!answer.ok) throw new Error((await answer.json()).error);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", failed = "";
    for (let part; !(part = await reader.read()).done;) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const found = JSON.parse(line);
        if (found.waiting) say(`${name}: waiting, ${found.waiting} before you`);
        if (found.progress !== undefined) { bar.value = found.progress; say(`${name}: predicting with ${found.model}`); }
        if (found.result) draw(found.model, found.result, name);
        if (found.error) failed += `${found.model}: ${found.error}. `;
      }
    }
    say(failed || `${name}: done`, Boolean(failed));
  } catch (error) {
    if (error.name !== "AbortError") say(`${name}: ${error.message}`, true);
  } finally {
    if (running === mine) { running = null; bar.hidden = true; }
  }
}

const order = row => row.map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]);

function draw(model, found, name) {
  const article = $("#model").content.cloneNode(true).firstElementChild, {duration, classes, voices} = found;
  $("h2", article).textContent = model;
  $(".sentences", article).textContent = found.sentences.join(" ");
  const tracks = $(".tracks", article), share = seconds => `${100 * Math.min(seconds / duration, 1)}%`;
  const lane = (label, lead = false) => {
    const track = make("div", lead ? "track lead" : "track"), box = make("div", "lane"), said = make("span", "", label);
    said.title = label;
    track.append(said, box);
    tracks.append(track);
    return box;
  };
  const scenes = lane("decision", true);
  for (const segment of found.segments) {
    const block = make("div", `block k${classes.indexOf(segment.scene) % 10}`, segment.scene);
    block.title = `${segment.scene}, ${clock(segment.start)} to ${clock(segment.end)}, ${percent(segment.confidence)}`;
    block.style.left = share(segment.start);
    block.style.width = share(segment.end - segment.start);
    scenes.append(block);
  }
  const strip = (box, colour, values, titles) => {
    const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("preserveAspectRatio", "none");
    drawing.setAttribute("viewBox", `0 0 ${duration} 1`);
    values.forEach((value, i) => {
      const cell = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const end = i + 1 < values.length ? found.starts[i + 1] : found.ends[i];
      for (const [key, v] of Object.entries({x: found.starts[i], y: 0, width: Math.max(end - found.starts[i], 0), height: 1, class: `k${colour(i) % 10}`, "fill-opacity": value}))
        cell.setAttribute(key, v);
      cell.style.fill = "var(--k)";
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = titles(i);
      cell.append(title);
      drawing.append(cell);
    });
    box.append(drawing);
  };
  const mean = classes.map((_, k) => voices.decision.reduce((sum, row) => sum + row[k], 0) / voices.decision.length);
  const peak = classes.map((_, k) => Math.max(...voices.decision.map(row => row[k])));
  const likely = order(peak.map((p, k) => p + mean[k])).slice(0, SHOWN).map(([, k]) => k);
  for (const k of likely)
    strip(lane(classes[k]), () => k, voices.decision.map(row => row[k]), i => `${classes[k]} ${percent(voices.decision[i][k])} at ${clock(found.starts[i])}`);
  for (const voice of ["audio alone", "video alone"]) if (voices[voice]) {
    const best = voices[voice].map(row => order(row)[0]);
    strip(lane(voice), i => best[i][1], best.map(([p]) => p), i => `${voice}: ${classes[best[i][1]]} ${percent(best[i][0])} at ${clock(found.starts[i])}`);
  }
  const names = Object.keys(voices).sort((a, b) => (b === "decision") - (a === "decision") || b.endsWith(" alone") - a.endsWith(" alone"));
  const timeline = $(".timeline", article), head = $(".head", article), body = $(".voices tbody", article);
  timeline.ariaValueMax = duration.toFixed(1);
  const at = time => {
    const left = scenes.offsetLeft, width = scenes.offsetWidth;
    head.style.left = `${left + width * Math.min(time / duration, 1)}px`;
    timeline.ariaValueNow = time.toFixed(1);
    let i = found.starts.findLastIndex(start => start <= time + 1e-3);
    i = Math.max(i, 0);
    $(".now", article).textContent = `${clock(found.starts[i])} to ${clock(found.ends[i])}`;
    body.textContent = "";
    for (const voice of names) {
      const row = make("tr", voice === "decision" ? "lead" : "");
      row.append(Object.assign(make("th", "", voice === "decision" || voice.endsWith(" alone") ? voice : `${voice} head`), {scope: "row"}));
      for (const [p, k] of order(voices[voice][i]).slice(0, 3)) {
        const cell = make("td", "share");
        cell.append(make("span", `chip k${k % 10}`), `${classes[k]} ${percent(p)}`);
        row.append(cell);
      }
      body.append(row);
    }
  };
  const jump = time => {
    time = Math.min(Math.max(time, 0), duration);
    if (player.readyState) player.currentTime = time;
    views.forEach(view => view(time));
  };
  timeline.onclick = event => {
    const box = scenes.getBoundingClientRect();
    if (event.clientX >= box.left) jump(duration * (event.clientX - box.left) / box.width);
  };
  timeline.onkeydown = event => {
    const step = {ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10}[event.key];
    if (step) { event.preventDefault(); jump(Number(timeline.ariaValueNow) + step); }
  };
  for (const segment of found.segments) {
    const row = make("tr"), start = make("button", "", clock(segment.start)), cell = make("td");
    start.type = "button";
    start.onclick = () => jump(segment.start);
    cell.append(start);
    row.append(cell, make("td", "", clock(segment.end)), make("td", "", segment.scene), make("td", "", percent(segment.confidence)));
    $(".segments tbody", article).append(row);
  }
  const {downloads, ...plain} = found, stem = name.replace(/\.[^.]*$/, "");
  const files = {CSV: ["segments.csv", downloads.csv, "text/csv"], JSON: ["json", JSON.stringify({file: name, model, ...plain}, null, 1), "application/json"],
    WebVTT: ["vtt", downloads.webvtt, "text/vtt"], "Audacity labels": ["labels.txt", downloads.audacity, "text/plain"]};
  $(".downloads", article).append(make("span", "muted small", "Download:"));
  for (const [label, [ending, text, type]] of Object.entries(files)) {
    const link = make("a", "button", label);
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = `${stem}.${ending}`;
    $(".downloads", article).append(link);
  }
  $("#models").append(article);
  views.push(at);
  at(player.currentTime || 0);
}

let last = -1;
(function follow() {
  if (views.length && player.currentTime !== last) { last = player.currentTime; views.forEach(view => view(last)); }
  requestAnimationFrame(follow);
})();
addEventListener("resize", () => views.forEach(view => view(player.currentTime || 0)));
