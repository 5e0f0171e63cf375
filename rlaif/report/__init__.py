"""Reports: one self-contained HTML file each, with pictures as inline SVG, that needs no network and no script."""
