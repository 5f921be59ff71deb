"use strict";
// Fetches the page every five seconds and replaces its live parts. Without this script the page is static.
const REFRESH_MS = 5000;
const offline = document.getElementById("offline");
let paused = false;
let lastUpdate = new Date();

function isInUse(part) {
  const selection = document.getSelection();
  return part.contains(document.activeElement) ||
    (!selection.isCollapsed && part.contains(selection.anchorNode));
}

async function refresh() {
  const response = await fetch(location.href.split("#")[0], { signal: AbortSignal.timeout(15000) });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next && !isInUse(part)) part.replaceWith(document.adoptNode(next));
  }
  lastUpdate = new Date();
}

async function tick() {
  if (!paused && !document.hidden) {
    try {
      await refresh();
      offline.hidden = true;
    } catch {
      offline.textContent = `No answer from the worker; last update at ${lastUpdate.toLocaleTimeString()}.`;
      offline.hidden = false;
    }
  }
  setTimeout(tick, REFRESH_MS);
}

const button = document.createElement("button");
button.type = "button";
button.textContent = "Pause";
button.title = "Pause or resume the refresh every 5 seconds";
button.addEventListener("click", () => {
  paused = !paused;
  button.textContent = paused ? "Resume" : "Pause";
});
document.getElementById("controls").append(button);
setTimeout(tick, REFRESH_MS);
