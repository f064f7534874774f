// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/distribution_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace stoker::ctl {
namespace {

// Samples in each column of the axis.
std::vector<double> Columns(const v1::Distribution& distribution, double low, double high, int width) {
  std::vector<double> columns(static_cast<size_t>(width), 0);
  const double column = (high - low) / width;
  const double bin = (distribution.max() - distribution.min()) / std::max(distribution.histogram_size(), 1);
  for (int i = 0; i < distribution.histogram_size(); ++i) {
    const double begin = distribution.min() + i * bin;
    const double end = begin + bin;
    const auto at = [&](double x) {
      return column > 0 ? std::clamp(static_cast<int>((x - low) / column), 0, width - 1) : 0;
    };
    for (int c = at(begin); c <= at(end); ++c) {
      const double overlap = std::min(end, low + (c + 1) * column) - std::max(begin, low + c * column);
      const double share = bin > 0 ? std::max(overlap, 0.0) / bin : 1;
      columns[static_cast<size_t>(c)] += share * static_cast<double>(distribution.histogram(i));
    }
  }
  return columns;
}

}  // namespace

std::string PlotDistribution(const v1::Distribution& distribution, double low, double high, int width) {
  constexpr std::array<const char*, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::vector<double> columns = Columns(distribution, low, high, width);
  const double most = *std::max_element(columns.begin(), columns.end());
  std::string plot;
  for (const double samples : columns) {
    if (samples <= 0) {
      plot += ' ';
    } else {
      const auto eighths = static_cast<size_t>(std::ceil(samples / most * kBlocks.size()));
      plot += kBlocks[std::clamp<size_t>(eighths, 1, kBlocks.size()) - 1];
    }
  }
  return plot;
}

}  // namespace stoker::ctl
