// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/distribution_plot.h"

#include <gtest/gtest.h>

#include <vector>

namespace stoker::ctl {
namespace {

v1::Distribution Of(double min, double max, const std::vector<uint64_t>& histogram) {
  v1::Distribution distribution;
  distribution.set_min(min);
  distribution.set_max(max);
  distribution.mutable_histogram()->Assign(histogram.begin(), histogram.end());
  return distribution;
}

TEST(PlotDistribution, ColumnForABin_IsAsHighAsItsShareOfTheFullest) {
  EXPECT_EQ(PlotDistribution(Of(0, 4, {8, 4, 0, 1}), 0, 4, 4), "█▄ ▁");
}

TEST(PlotDistribution, OnAWiderAxis_LiesWhereItsValuesAre) {
  EXPECT_EQ(PlotDistribution(Of(2, 4, {3, 3}), 0, 8, 8), "  ██    ");
  EXPECT_EQ(PlotDistribution(Of(6, 8, {3, 3}), 0, 8, 8), "      ██");
}

TEST(PlotDistribution, BinsWiderThanColumns_AreSpreadOverThem) {
  EXPECT_EQ(PlotDistribution(Of(0, 4, {2, 1}), 0, 4, 4), "██▄▄");
}

TEST(PlotDistribution, AllSamplesAlike_AreOneColumn) {
  EXPECT_EQ(PlotDistribution(Of(5, 5, {7}), 5, 5, 4), "█   ");
  EXPECT_EQ(PlotDistribution(Of(8, 8, {7}), 0, 8, 4), "   █");
}

TEST(PlotDistribution, OneSampleAmongThousands_IsSeen) {
  EXPECT_EQ(PlotDistribution(Of(0, 2, {100000, 1}), 0, 2, 2), "█▁");
}

TEST(PlotDistribution, OfNothing_IsEmpty) { EXPECT_EQ(PlotDistribution(Of(0, 0, {}), 0, 1, 3), "   "); }

}  // namespace
}  // namespace stoker::ctl
