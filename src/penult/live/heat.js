// Heat maps: asked for when their images come into sight, given up when one moves on.

const MOST_MAPS = 64; // in one question
const MOST_ASKED = 2; // questions at once
const mapped = new Map(); // "feature,image" → map, or null where there is none
const queue = [];
let asking = 0;

const canMap = (view) => about().live.maps && Number.isInteger(view.feature) && known(view.index)
  && Boolean(item("image", view.index)?.src) && mapped.get(mapName(view)) !== null;
const mapName = (view) => `${view.feature},${view.index}`;

// views: [{index, feature, map}, …] in the order of the frames in the holder; all that have none get theirs.
function mapLater(holder, views) {
  const frames = holder.matches(".frame") ? [holder] : [...holder.querySelectorAll(".frame")];
  const byFeature = new Map();
  views.forEach((view, place) => {
    if (view.map || !canMap(view) || !frames[place]) return;
    if (!byFeature.has(view.feature)) byFeature.set(view.feature, []);
    byFeature.get(view.feature).push([view, frames[place]]);
  });
  const { signal } = leaving;
  for (const [feature, all] of byFeature) {
    for (let start = 0; start < all.length; start += MOST_MAPS) {
      const some = all.slice(start, start + MOST_MAPS);
      whenSeen(some[0][1], () => { queue.push({ feature, some, signal }); nextMaps(); });
    }
  }
}

function nextMaps() {
  if (root.classList.contains("maps-off")) return; // asked for when they are switched on again
  while (asking < MOST_ASKED && queue.length) {
    const one = queue.shift();
    if (one.signal.aborted || !one.some.some(([, frame]) => frame.isConnected)) continue;
    asking += 1;
    askMaps(one).finally(() => { asking -= 1; nextMaps(); });
  }
}

async function askMaps({ feature, some, signal }) {
  const wanted = some.filter(([view]) => !mapped.has(mapName(view)));
  const rings = wanted.map(([, frame]) => {
    const ring = progressRing();
    frame.append(ring.node);
    return ring;
  });
  try {
    if (wanted.length) {
      const images = [...new Set(wanted.map(([view]) => view.index))];
      const found = await ask(`api/maps?feature=${feature}&images=${images.join(",")}`, { signal,
        progress: ({ done, all }) => rings.forEach((ring) => ring.set(all ? done / all : null)) });
      about().pictures.grid ||= found.grid;
      for (const index of images) mapped.set(`${feature},${index}`, found.maps[index] ? [found.maps[index], found.grid] : null);
    }
    for (const [view, frame] of some) {
      const map = mapped.get(mapName(view));
      if (!map) continue;
      [view.map] = map;
      if (!frame.querySelector(".map")) overlay(frame, ...map);
    }
  } catch { /* the image is there without its map; asked for again when one comes back */
  } finally {
    rings.forEach((ring) => ring.node.remove());
  }
}
