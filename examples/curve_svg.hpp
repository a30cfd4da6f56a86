/// A curve as one SVG file: axes with round numbers, a title, legible on a light and on a dark page, nothing loaded.
#pragma once

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

namespace curve {

struct point {
  double x, low, high;
};

/// The step of about `count` round numbers (1, 2 or 5 times a power of ten) up to `most`.
inline double round_step(double most, int count) {
  const double wanted = most / count, power = std::pow(10, std::floor(std::log10(wanted)));
  for (const double times : {1.0, 2.0, 5.0})
    if (times * power >= wanted) return times * power;
  return 10 * power;
}

/// `points` in the order of x, from x = 0 on; the curve is drawn through `high`, and the band from `low` up to it.
inline std::string svg(const std::vector<point>& points, const std::string& title, const std::string& subtitle,
                       const std::string& x_name, const std::string& y_name) {
  constexpr double width = 720, height = 440, left = 76, right = 24, top = 64, bottom = 56;
  double most_x = 0, most_y = 0;
  for (const auto& p : points) most_x = std::max(most_x, p.x), most_y = std::max(most_y, p.high);
  if (!(most_x > 0)) most_x = 1;
  if (!(most_y > 0)) most_y = 1;
  most_y *= 1.05;
  const auto x = [&](double value) { return left + (width - left - right) * value / most_x; };
  const auto y = [&](double value) { return height - bottom - (height - top - bottom) * value / most_y; };
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height << "\" width=\"" << width
      << "\" height=\"" << height << "\" role=\"img\">\n<title>" << title << "</title>\n"
      << "<style>\n  :root { --page: #ffffff; --ink: #1f2328; --faint: #d0d7de; --curve: #0969da; }\n"
         "  @media (prefers-color-scheme: dark) {\n"
         "    :root { --page: #0d1117; --ink: #e6edf3; --faint: #30363d; --curve: #58a6ff; }\n  }\n"
         "  text { fill: var(--ink); font: 13px system-ui, sans-serif; }\n"
         "  .grid { stroke: var(--faint); } .curve { stroke: var(--curve); stroke-width: 2; fill: none; }\n"
         "  .band { fill: var(--curve); opacity: 0.25; }\n</style>\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"var(--page)\"/>\n";
  out << "<text x=\"" << left << "\" y=\"26\" font-weight=\"600\" style=\"font-size:16px\">" << title << "</text>\n"
      << "<text x=\"" << left << "\" y=\"46\">" << subtitle << "</text>\n";
  const double step_y = round_step(most_y, 6), step_x = round_step(most_x, 6);
  for (int i = 0; i * step_y <= most_y; ++i)
    out << "<line class=\"grid\" x1=\"" << left << "\" x2=\"" << width - right << "\" y1=\"" << y(i * step_y)
        << "\" y2=\"" << y(i * step_y) << "\"/><text text-anchor=\"end\" x=\"" << left - 8 << "\" y=\""
        << y(i * step_y) + 4 << "\">" << i * step_y << "</text>\n";
  for (int i = 0; i * step_x <= most_x; ++i)
    out << "<line class=\"grid\" y1=\"" << y(0) << "\" y2=\"" << y(0) + 5 << "\" x1=\"" << x(i * step_x) << "\" x2=\""
        << x(i * step_x) << "\"/><text text-anchor=\"middle\" x=\"" << x(i * step_x) << "\" y=\"" << y(0) + 20 << "\">"
        << i * step_x << "</text>\n";
  out << "<text text-anchor=\"middle\" x=\"" << (left + width - right) / 2 << "\" y=\"" << height - 14 << "\">"
      << x_name << "</text>\n<text text-anchor=\"middle\" transform=\"translate(20 " << (top + height - bottom) / 2
      << ") rotate(-90)\">" << y_name << "</text>\n";
  out << "<polygon class=\"band\" points=\"";
  for (const auto& p : points) out << x(p.x) << ',' << y(p.high) << ' ';
  for (auto p = points.rbegin(); p != points.rend(); ++p) out << x(p->x) << ',' << y(p->low) << ' ';
  out << "\"/>\n<polyline class=\"curve\" points=\"";
  for (const auto& p : points) out << x(p.x) << ',' << y(p.high) << ' ';
  out << "\"/>\n</svg>\n";
  return out.str();
}

}  // namespace curve
