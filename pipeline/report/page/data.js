// The label data: arrays behind one another, deflated, in base64; how they lie is told by the JSON beside them.

const HARD = 128, SOFT = 127, UNKNOWN = 255;
const TYPES = { uint8: Uint8Array, uint16: Uint16Array };

async function inflated(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Response(stream).arrayBuffer();
}

async function load() {
  const about = JSON.parse(document.getElementById('contents').textContent);
  const buffer = await inflated(document.getElementById('arrays').textContent.trim());
  const data = { ...about, strips: document.getElementById('strips').textContent.trim() };
  for (const one of about.arrays) data[one.name] = new TYPES[one.type](buffer, one.offset, one.items);
  data.first = new Uint32Array(data.ids.length + 1);
  data.pictureAt = new Uint32Array(data.ids.length + 1);
  for (let clip = 0; clip < data.ids.length; clip++) {
    data.first[clip + 1] = data.first[clip] + data.counts[clip];
    data.pictureAt[clip + 1] = data.pictureAt[clip] + data.pictures[clip];
  }
  return data;
}

// One byte of a set: entry is a pair of a clip and a class, modality 0 heard, 1 seen.
function cell(data, set, entry, modality, second) {
  return data.cells[((set * data.entries + entry) * 2 + modality) * data.segments + second];
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, part = bits & 1023;
  if (exponent === 31) return part ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
}

function logit(data, set, entry, modality, second) {
  const values = data['logits' + set];
  return values ? half(values[(entry * 2 + modality) * data.segments + second]) : null;
}

function there(data, set, clip) {
  return data.status[set * data.ids.length + clip] === 1;
}

function share(value) {
  return value === UNKNOWN ? null : value / 200;
}

function distanceOf(data, set, clip) {
  return share(data.distance[set * data.ids.length + clip]);
}

function picture(data, clip) {
  const from = data.pictureAt[clip], to = data.pictureAt[clip + 1];
  return to > from ? 'data:image/webp;base64,' + data.strips.slice(from, to) : '';
}
