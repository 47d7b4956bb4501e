// Playing and seeking. Everything is found when it is needed, since Gradio replaces the markup with every answer.
(() => {
  const sound = () => document.getElementById("pg-sound");
  const player = () => sound()?.querySelector("audio");
  const lengthOf = (figure) => Number(figure.dataset.duration);

  const clock = (time) => {
    const tenths = Math.round(time * 10);
    const hours = Math.floor(tenths / 36000);
    const minutes = Math.floor(tenths / 600) % 60;
    const seconds = `${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
    return `${hours ? `${hours}:` : ""}${String(minutes).padStart(2, "0")}:${seconds}`;
  };

  const show = () => {
    const figure = sound();
    const audio = player();
    if (!figure || !audio) return;
    const time = Math.min(audio.currentTime, lengthOf(figure));
    const share = lengthOf(figure) ? time / lengthOf(figure) : 0;
    figure.style.setProperty("--at", share);
    const range = figure.querySelector("[data-range]");
    range.value = time;
    range.style.setProperty("--at", share);
    range.setAttribute("aria-valuetext", clock(time));
    figure.querySelector("[data-clock]").textContent = clock(time);
    const button = figure.querySelector("[data-play]");
    button.classList.toggle("pg-playing", !audio.paused);
    button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    for (const part of document.querySelectorAll("[data-seek]")) {
      const now = time > 0 && Number(part.dataset.seek) <= time && time < Number(part.dataset.until);
      part.classList.toggle("pg-now", now);
    }
  };

  let frame = 0;
  const follow = () => {
    show();
    cancelAnimationFrame(frame);
    const audio = player();
    if (audio && !audio.paused) frame = requestAnimationFrame(follow);
  };

  const seek = (time, play) => {
    const figure = sound();
    const audio = player();
    if (!figure || !audio) return;
    audio.currentTime = Math.max(0, Math.min(time, lengthOf(figure)));
    // A browser that may not play, or cannot, leaves the player as it is.
    if (play) audio.play().catch(() => show());
    show();
  };

  document.addEventListener("click", (event) => {
    const part = event.target.closest?.("[data-seek], [data-play], [data-plot], [data-dismiss]");
    if (!part) return;
    if (part.dataset.dismiss !== undefined) {
      part.parentElement.remove();
      return;
    }
    if (part.dataset.seek !== undefined) {
      seek(Number(part.dataset.seek), true);
    } else if (part.dataset.plot !== undefined) {
      const box = part.getBoundingClientRect();
      seek(((event.clientX - box.left) / box.width) * lengthOf(sound()), false);
    } else {
      const audio = player();
      if (audio.paused) audio.play().catch(() => show());
      else audio.pause();
    }
  });

  // Only events of the chosen label, and at least so confident, are shown, and only lanes with such events.
  const filter = (controls) => {
    const label = controls.querySelector("[data-filter-label]").value;
    const range = controls.querySelector("[data-filter-confidence]");
    const shown = `${Math.round(100 * range.value)}%`;
    controls.querySelector("[data-filter-shown]").textContent = shown;
    range.setAttribute("aria-valuetext", shown);
    for (const part of controls.parentElement.querySelectorAll("[data-confidence]")) {
      const kept = (!label || part.dataset.label === label) && Number(part.dataset.confidence) >= Number(range.value);
      (part.closest("li") ?? part).hidden = !kept;
    }
    for (const lane of controls.parentElement.querySelectorAll(".pg-lane")) {
      lane.hidden = !lane.querySelector("button:not([hidden])");
    }
  };

  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-range]")) seek(Number(event.target.value), false);
    const controls = event.target.closest?.("[data-filter]");
    if (controls) filter(controls);
  });

  // Media events do not bubble; they can be caught on their way down.
  for (const name of ["play", "pause", "ended", "seeked", "timeupdate"]) {
    document.addEventListener(name, (event) => event.target.closest?.("#pg-sound") && follow(), true);
  }

  // A search result is opened where it was found.
  const arrive = new MutationObserver(() => {
    const figure = sound();
    if (!figure?.dataset.start) return;
    const audio = player();
    const start = Number(figure.dataset.start);
    delete figure.dataset.start;
    const go = () => seek(start, true);
    if (audio.readyState) go();
    else audio.addEventListener("loadedmetadata", go, { once: true });
  });
  arrive.observe(document.documentElement, { childList: true, subtree: true });
})();
