/** Runs in a page: the visible texts whose contrast is below WCAG's AA (4.5, or 3 if large), with what it is. */
export function weakTexts() {
  const parse = (text) => {
    const numbers = text.match(/[\d.]+(e-\d+)?/g).map(Number);
    const [r, g, b, a = 1] = numbers;
    return text.startsWith('color(') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((channel, i) => channel * a + under[i] * (1 - a));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const layer = parse(getComputedStyle(at).backgroundColor);
      if (layer[3] > 0) layers.unshift(layer);
    }
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((channel) => {
      const part = channel / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const weak = new Set();
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    const field = element.matches('input[type="text"], input[type="search"], textarea');
    // What cannot be used may look faint.
    if ((!own && !field) || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || element.matches(':disabled')) continue;
    const style = getComputedStyle(element);
    const under = ground(element);
    const colors = field ? [style.color, getComputedStyle(element, '::placeholder').color] : [style.color];
    for (const color of colors) {
      const [light, dark] = [luminance(over(parse(color), under)), luminance(under)].sort((a, b) => b - a);
      const contrast = (light + 0.05) / (dark + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
      if (contrast < (large ? 3 : 4.5)) weak.add(`${contrast.toFixed(2)}: ${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`);
    }
  }
  return [...weak];
}
