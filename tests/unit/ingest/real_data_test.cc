// SPDX-License-Identifier: Apache-2.0
// Real files of the UCR/UEA archives and of ETT, against what numpy, pandas and aeon read from them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::ingest {
namespace {

using nlohmann::json;
using Options = v1::IngestOptions;

std::string SharedDir() {
  const char* named = ::getenv("STOKER_SHARED");
  return named != nullptr ? named : STOKER_SHARED_DIR;
}

struct Sums {
  double sum = 0, sum_abs = 0, sumsq = 0;
  double low = HUGE_VAL, high = -HUGE_VAL;
  uint64_t count = 0;
  void Add(double value) {
    sum += value;
    sum_abs += std::abs(value);
    sumsq += value * value;
    low = std::min(low, value);
    high = std::max(high, value);
    ++count;
  }
};

void ExpectSums(const store::TimeSeriesStore& store, const json& golden) {
  Sums all;
  std::vector<Sums> channels(store.channels());
  for (uint64_t i = 0; i < store.samples(); ++i) {
    for (uint64_t c = 0; c < store.channels(); ++c) {
      for (const double value : Channel(store, i, c)) {
        all.Add(value);
        channels[c].Add(value);
      }
    }
  }
  EXPECT_EQ(all.count, golden["n_values"].get<uint64_t>());
  EXPECT_NEAR(all.sum, golden["sum"].get<double>(), 1e-12 * golden["sum_abs"].get<double>());
  EXPECT_NEAR(all.sumsq, golden["sumsq"].get<double>(), 1e-11 * golden["sumsq"].get<double>());
  EXPECT_EQ(all.low, golden["min"].get<double>());
  EXPECT_EQ(all.high, golden["max"].get<double>());
  if (golden.contains("channel_sums")) {
    for (uint64_t c = 0; c < store.channels(); ++c) {
      EXPECT_NEAR(channels[c].sum, golden["channel_sums"][c].get<double>(), 1e-12 * channels[c].sum_abs);
    }
  }
  for (uint64_t c = 0; c < store.channels(); ++c) {
    EXPECT_EQ(store.manifest().time_series().channel_min(static_cast<int>(c)), channels[c].low);
    EXPECT_EQ(store.manifest().time_series().channel_max(static_cast<int>(c)), channels[c].high);
  }
}

void ExpectTargets(const store::TimeSeriesStore& store, const json& golden) {
  const v1::StoreManifest& manifest = store.manifest();
  if (golden["target"] == "class") {
    ASSERT_EQ(manifest.target(), Options::TARGET_CLASS);
    EXPECT_EQ(ClassLabels(manifest), golden["classes_as_spelled"].get<std::vector<std::string>>());
    for (int k = 0; k < manifest.classes_size(); ++k) {
      EXPECT_EQ(manifest.classes(k).samples(), golden["counts"][static_cast<size_t>(k)].get<uint64_t>());
    }
    const auto label = [&](uint64_t i) {
      return manifest.classes(static_cast<int>(store.Sample(i)->class_id)).label();
    };
    EXPECT_EQ(label(0), golden["first_label"].get<std::string>());
    EXPECT_EQ(label(store.samples() - 1), golden["last_label"].get<std::string>());
  } else if (golden["target"] == "regression") {
    ASSERT_EQ(manifest.target(), Options::TARGET_VALUE);
    Sums targets;
    for (uint64_t i = 0; i < store.samples(); ++i) targets.Add(store.Sample(i)->values[0]);
    EXPECT_EQ(store.Sample(0)->values[0], golden["target_first"].get<double>());
    EXPECT_EQ(store.Sample(store.samples() - 1)->values[0], golden["target_last"].get<double>());
    EXPECT_NEAR(targets.sum, golden["target_sum"].get<double>(), 1e-12 * targets.sum_abs);
  } else {
    EXPECT_EQ(manifest.target(), Options::TARGET_NONE);
  }
}

TEST(RealDataTest, EveryFile_MatchesWhatOthersRead) {
  std::ifstream file(SharedDir() + "/golden/timeseries_shapes.json");
  if (!file) GTEST_SKIP() << "no golden/timeseries_shapes.json in " << SharedDir();
  const json golden = json::parse(file)["files"];
  const std::string folder = std::filesystem::canonical(SharedDir() + "/data/timeseries").string();
  int files = 0;
  for (const auto& [name, expected] : golden.items()) {
    const std::string path = folder + "/" + name;
    if (!std::filesystem::exists(path) || name.ends_with(".npz")) continue;
    SCOPED_TRACE(name);
    const IngestHarness harness;
    Options options;
    if (expected["length_min"] != expected["length_max"]) options.set_unequal(Options::UNEQUAL_PAD);
    ASSERT_OK_AND_ASSIGN(const auto store, harness.Open({path}, options));
    EXPECT_EQ(store->samples(), expected["n_cases"].get<uint64_t>());
    EXPECT_EQ(store->channels(), expected["n_channels"].get<uint64_t>());
    EXPECT_EQ(store->manifest().time_series().length_min(), expected["length_min"].get<uint64_t>());
    EXPECT_EQ(store->length_max(), expected["length_max"].get<uint64_t>());
    EXPECT_EQ(Channel(*store, 0, 0).front(), expected["first_value"].get<double>());
    EXPECT_EQ(Channel(*store, store->samples() - 1, store->channels() - 1).back(),
              expected["last_value"].get<double>());
    ExpectSums(*store, expected);
    ExpectTargets(*store, expected);
    ++files;
  }
  EXPECT_GT(files, 0) << "golden figures, and none of the files in " << folder;
}

TEST(RealDataTest, SlidingWindowsOfAForecastingTable_AreCounted) {
  const std::string path = SharedDir() + "/data/timeseries/ETTh1.csv";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const IngestHarness harness;
  Options options;
  options.set_window(96);
  options.set_stride(24);
  ASSERT_OK_AND_ASSIGN(const auto store, harness.Open({std::filesystem::canonical(path).string()}, options));
  EXPECT_EQ(store->samples(), (17420u - 96) / 24 + 1);
  EXPECT_EQ(store->manifest().time_series().channels(0), "HUFL");
}

}  // namespace
}  // namespace stoker::ingest
