// SPDX-License-Identifier: Apache-2.0
// What a data set of 10 million samples costs in memory beside its mapped files. A program of its own: it counts every
// allocation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <new>
#include <vector>

#include "server/plan/plan.h"
#include "shared/store/safetensors.h"
#include "shared/store/time_series_store.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace {
std::atomic<uint64_t> live_bytes = 0;
std::atomic<uint64_t> peak_bytes = 0;
}  // namespace

void* operator new(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  const uint64_t now = live_bytes += malloc_usable_size(memory);
  if (now > peak_bytes) peak_bytes = now;
  return memory;
}
void operator delete(void* memory) noexcept {
  live_bytes -= malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

namespace stoker::plan {
namespace {

constexpr uint64_t kSamples = 10'000'000;
constexpr int64_t kSeries = 1000;
constexpr int64_t kWindow = 96;
constexpr int64_t kPoints = kSamples / kSeries + kWindow - 1;  // windows at every point
// An order of samples as a table would be 80 MB.
constexpr uint64_t kMostBytes = 1 << 20;

// One shard of kSeries univariate series; 40 MB on disk.
void WriteStore(const testing::TempDir& dir) {
  std::vector<int64_t> offset, length(kSeries, kPoints), first, line, target(kSeries, 0);
  for (int64_t s = 0; s <= kSeries; ++s) {
    offset.push_back(s * kPoints);
    first.push_back(s * (kPoints - kWindow + 1));
    if (s < kSeries) line.push_back(s);
  }
  ASSERT_OK_AND_ASSIGN(store::SafetensorsWriter writer,
                       store::SafetensorsWriter::Create(dir.File("shard.safetensors"), {{"place", "line"}},
                                                        {{"value_offset", v1::DTYPE_I64, {kSeries + 1}},
                                                         {"series_length", v1::DTYPE_I64, {kSeries}},
                                                         {"first_sample", v1::DTYPE_I64, {kSeries + 1}},
                                                         {"source_line", v1::DTYPE_I64, {kSeries}},
                                                         {"first_line", v1::DTYPE_I64, {1}},
                                                         {"target", v1::DTYPE_I64, {kSeries}},
                                                         {"values", v1::DTYPE_F32, {kSeries * kPoints}}}));
  for (const auto* values : {&offset, &length, &first, &line}) ASSERT_OK(writer.Append(absl::MakeConstSpan(*values)));
  ASSERT_OK(writer.Append(absl::MakeConstSpan(std::vector<int64_t>{1})));
  ASSERT_OK(writer.Append(absl::MakeConstSpan(target)));
  const std::vector<float> series(kPoints, 0.5f);
  for (int64_t s = 0; s < kSeries; ++s) ASSERT_OK(writer.Append(absl::MakeConstSpan(series)));
  ASSERT_OK_AND_ASSIGN(const uint64_t size, writer.Finish());

  v1::StoreManifest manifest;
  manifest.set_version(store::kStoreVersion);
  manifest.set_kind(v1::TIME_SERIES);
  manifest.set_target(v1::IngestOptions::TARGET_CLASS);
  manifest.set_target_width(1);
  manifest.add_classes()->set_label("a");
  manifest.set_samples(kSamples);
  v1::TimeSeriesInfo* info = manifest.mutable_time_series();
  info->add_channels("x");
  info->add_channel_min(0);
  info->add_channel_max(1);
  info->set_window(kWindow);
  info->set_stride(1);
  info->set_length_min(kWindow);
  info->set_length_max(kWindow);
  v1::ShardInfo* shard = manifest.add_shards();
  shard->set_file("shard.safetensors");
  shard->set_size_bytes(size);
  shard->set_samples(kSamples);
  shard->set_source("/data/a.ts");
  ASSERT_OK(store::WriteManifest(dir.File(store::kManifestName), manifest));
}

TEST(PlanMemory, TenMillionShuffledSamples_NothingIsHeldASample) {
  const testing::TempDir dir;
  ASSERT_NO_FATAL_FAILURE(WriteStore(dir));
  const uint64_t before = live_bytes;
  peak_bytes = before;
  ASSERT_OK_AND_ASSIGN(const auto store, store::TimeSeriesStore::Open(dir.path()));
  v1::Plan proto;
  proto.set_batch_size(64);
  proto.set_shuffle(true);
  ASSERT_OK_AND_ASSIGN(const v1::Plan complete, CompletePlan(proto));
  CostTable costs;
  costs.samples = store->samples();
  ASSERT_EQ(costs.samples, kSamples);
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<const BatchPlan> plan, BatchPlan::Create(complete, costs));
  for (uint64_t step = 0; step < plan->Steps(3); step += 1000) {
    for (const uint64_t sample : plan->Samples(/*epoch=*/3, step, 0, plan->SampleCount(3, step))) {
      ASSERT_OK(store->Sample(sample));
    }
  }
  const uint64_t bytes = peak_bytes - before;
  std::cout << "store and plan of " << kSamples << " samples: at most " << bytes << " bytes at once, "
            << static_cast<double>(bytes) / kSamples << " a sample\n";
  EXPECT_GT(bytes, 0u);
  EXPECT_LT(bytes, kMostBytes);
}

}  // namespace
}  // namespace stoker::plan
