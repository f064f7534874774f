// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "stoker/v1/store.pb.h"

namespace stoker::ctl {

// The histogram as `width` blocks of text, "▁▂▃▄▅▆▇█", over the axis from `low` to `high`; the fullest column is a
// whole block, an empty one a space. Several on one axis can be compared by eye: each bin is spread evenly over its
// columns. REQUIRES: low <= min and max <= high of the distribution, width > 0.
std::string PlotDistribution(const v1::Distribution& distribution, double low, double high, int width);

}  // namespace stoker::ctl
