// A photo-sized JPEG with some grain, so that resizing it is work and no file has to be carried along.

import sharp from 'sharp'

export async function sampleImage ({ width = 2000, height = 1500 } = {}) {
  const gradient = Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">
    <linearGradient id="sky" x2="1" y2="1">
      <stop stop-color="#1b3a6b"/><stop offset="1" stop-color="#f2b66d"/>
    </linearGradient>
    <rect width="100%" height="100%" fill="url(#sky)"/>
  </svg>`)
  const noise = { type: 'gaussian', mean: 128, sigma: 30 }
  const grain = await sharp({ create: { width, height, channels: 3, background: 'gray', noise } }).png().toBuffer()
  return sharp(gradient).composite([{ input: grain, blend: 'soft-light' }]).flatten().jpeg({ quality: 85 }).toBuffer()
}
