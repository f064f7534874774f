// SPDX-License-Identifier: Apache-2.0
#include "shared/store/time_series_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::store {
namespace {

using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Options = v1::IngestOptions;

// A shard with series of the given lengths; point t of channel c of series s is 1000 s + 100 c + t.
struct ShardParams {
  std::vector<int64_t> lengths;
  int64_t channels = 2;
  std::vector<int64_t> samples;  // by series
  bool single = false;
  std::string place = "line";
  int64_t first_line = 1;
};

template <typename T>
void Append(SafetensorsWriter* writer, const std::vector<T>& values) {
  ASSERT_OK(writer->Append(absl::MakeConstSpan(values)));
}

class TimeSeriesStoreTest : public ::testing::Test {
 protected:
  TimeSeriesStoreTest() {
    manifest_.set_version(kStoreVersion);
    manifest_.set_kind(v1::TIME_SERIES);
    manifest_.set_target(Options::TARGET_CLASS);
    manifest_.set_target_width(1);
    for (const char* label : {"a", "b", "c"}) manifest_.add_classes()->set_label(label);
    v1::TimeSeriesInfo* info = manifest_.mutable_time_series();
    for (const char* name : {"x", "y"}) {
      info->add_channels(name);
      info->add_channel_min(0);
      info->add_channel_max(1);
    }
  }

  void AddShard(const ShardParams& params) {
    const int64_t series = static_cast<int64_t>(params.lengths.size());
    std::vector<double> values;
    std::vector<int64_t> offsets = {0}, first = {0}, lines, target;
    for (int64_t s = 0; s < series; ++s) {
      const int64_t length = params.lengths[static_cast<size_t>(s)];
      for (int64_t c = 0; c < params.channels; ++c) {
        for (int64_t t = 0; t < length; ++t) values.push_back(static_cast<double>(1000 * s + 100 * c + t));
      }
      offsets.push_back(static_cast<int64_t>(values.size()));
      first.push_back(first.back() + params.samples[static_cast<size_t>(s)]);
      lines.push_back(10 * s);
      target.push_back(s % 3);
    }
    const std::string name = absl::StrCat("shard-", manifest_.shards_size(), ".safetensors");
    const v1::DType dtype = params.single ? v1::DTYPE_F32 : v1::DTYPE_F64;
    ASSERT_OK_AND_ASSIGN(SafetensorsWriter writer,
                         SafetensorsWriter::Create(dir_.File(name), {{"place", params.place}},
                                                   {{"value_offset", v1::DTYPE_I64, {series + 1}},
                                                    {"series_length", v1::DTYPE_I64, {series}},
                                                    {"first_sample", v1::DTYPE_I64, {series + 1}},
                                                    {"source_line", v1::DTYPE_I64, {series}},
                                                    {"first_line", v1::DTYPE_I64, {1}},
                                                    {"target", v1::DTYPE_I64, {series}},
                                                    {"values", dtype, {static_cast<int64_t>(values.size())}}}));
    Append(&writer, offsets);
    Append(&writer, params.lengths);
    Append(&writer, first);
    Append(&writer, lines);
    Append(&writer, std::vector<int64_t>{params.first_line});
    Append(&writer, target);
    if (params.single) {
      Append(&writer, std::vector<float>(values.begin(), values.end()));
    } else {
      Append(&writer, values);
    }
    ASSERT_OK_AND_ASSIGN(const uint64_t size, writer.Finish());
    v1::ShardInfo* shard = manifest_.add_shards();
    shard->set_file(name);
    shard->set_size_bytes(size);
    shard->set_samples(static_cast<uint64_t>(first.back()));
    shard->set_source(absl::StrCat("/data/", manifest_.shards_size(), ".ts"));
    manifest_.set_samples(manifest_.samples() + shard->samples());
  }

  void SetLengths(uint64_t window, uint64_t stride, uint64_t length_max) {
    v1::TimeSeriesInfo* info = manifest_.mutable_time_series();
    info->set_window(window);
    info->set_stride(stride);
    info->set_length_min(1);
    info->set_length_max(length_max);
  }

  absl::StatusOr<std::shared_ptr<const TimeSeriesStore>> Open() {
    const absl::Status written = WriteManifest(dir_.File(kManifestName), manifest_);
    if (!written.ok()) return written;
    return TimeSeriesStore::Open(dir_.path());
  }

  static std::vector<double> Channel(const SampleView& view, uint64_t c) {
    std::vector<double> values(view.length);
    view.CopyChannel(c, values.data());
    return values;
  }

  TempDir dir_;
  v1::StoreManifest manifest_;
};

TEST_F(TimeSeriesStoreTest, WholeSeries_AreSamples) {
  AddShard({.lengths = {3, 2}, .samples = {1, 1}});
  AddShard({.lengths = {4}, .samples = {1}, .single = true, .first_line = 101});
  SetLengths(0, 0, 4);
  ASSERT_OK_AND_ASSIGN(const auto store, Open());
  EXPECT_EQ(store->samples(), 3u);
  ASSERT_OK_AND_ASSIGN(const SampleView first, store->Sample(0));
  EXPECT_EQ(first.length, 3u);
  EXPECT_THAT(Channel(first, 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(Channel(first, 1), ElementsAre(100, 101, 102));
  EXPECT_EQ(first.class_id, 0);
  ASSERT_OK_AND_ASSIGN(const SampleView second, store->Sample(1));
  EXPECT_THAT(Channel(second, 1), ElementsAre(1100, 1101));
  EXPECT_EQ(second.class_id, 1);
  ASSERT_OK_AND_ASSIGN(const SampleView third, store->Sample(2));
  EXPECT_EQ(third.f64, nullptr);
  EXPECT_THAT(Channel(third, 1), ElementsAre(100, 101, 102, 103));
  EXPECT_EQ(store->SampleName(1), "/data/1.ts:11");
  EXPECT_EQ(store->SampleName(2), "/data/2.ts:101");
  EXPECT_EQ(store->SampleName(9), "sample 9");
  EXPECT_THAT(store->Sample(3), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("sample 3 of 3")));
}

TEST_F(TimeSeriesStoreTest, Windows_StartEveryStride) {
  AddShard({.lengths = {7, 3, 4}, .samples = {3, 1, 1}});  // window 3, stride 2: starts 0 2 4 | 0 | 0
  SetLengths(3, 2, 3);
  ASSERT_OK_AND_ASSIGN(const auto store, Open());
  ASSERT_OK_AND_ASSIGN(const SampleView third, store->Sample(2));
  EXPECT_THAT(Channel(third, 0), ElementsAre(4, 5, 6));
  EXPECT_THAT(Channel(third, 1), ElementsAre(104, 105, 106));
  ASSERT_OK_AND_ASSIGN(const SampleView last, store->Sample(4));
  EXPECT_THAT(Channel(last, 1), ElementsAre(2100, 2101, 2102));
  EXPECT_EQ(store->SampleName(2), "/data/1.ts:1 points 4..6");
}

TEST_F(TimeSeriesStoreTest, LengthMax_CropsFromTheStart) {
  AddShard({.lengths = {5}, .samples = {1}, .place = "record", .first_line = 0});
  SetLengths(0, 0, 2);
  ASSERT_OK_AND_ASSIGN(const auto store, Open());
  ASSERT_OK_AND_ASSIGN(const SampleView view, store->Sample(0));
  EXPECT_THAT(Channel(view, 1), ElementsAre(100, 101));
  EXPECT_EQ(store->SampleName(0), "/data/1.ts: record 0");
}

TEST_F(TimeSeriesStoreTest, MissingStore_IsNotFound) {
  EXPECT_THAT(TimeSeriesStore::Open(dir_.File("none")), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(TimeSeriesStoreTest, OtherVersion_IsRefused) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  manifest_.set_version(kStoreVersion + 1);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ingest the source again")));
}

TEST_F(TimeSeriesStoreTest, ShardOfOtherSize_IsDataLoss) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  manifest_.mutable_shards(0)->set_size_bytes(5);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the manifest says 5")));
}

TEST_F(TimeSeriesStoreTest, MissingShard_IsNotFound) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  std::filesystem::remove(dir_.File("shard-0.safetensors"));
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("shard-0")));
}

TEST_F(TimeSeriesStoreTest, ShardOutsideTheDirectory_IsDataLoss) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  manifest_.mutable_shards(0)->set_file("../shard-0.safetensors");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("../shard-0")));
}

TEST_F(TimeSeriesStoreTest, SampleCountsThatDisagree_AreDataLoss) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  manifest_.mutable_shards(0)->set_samples(2);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shards have 2 samples")));
  manifest_.set_samples(2);
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("not 2 samples")));
}

TEST_F(TimeSeriesStoreTest, MalformedManifest_IsDataLoss) {
  dir_.Write(kManifestName, "{\"version\": ");
  EXPECT_THAT(TimeSeriesStore::Open(dir_.path()), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(kManifestName)));
}

TEST_F(TimeSeriesStoreTest, OffsetsOutsideTheValues_AreDataLossWhenRead) {
  AddShard({.lengths = {3}, .samples = {1}});
  SetLengths(0, 0, 3);
  const std::vector<int64_t> offsets = {1, 6};
  ASSERT_OK(OverwriteTensors(
      dir_.File("shard-0.safetensors"),
      {{"value_offset", {reinterpret_cast<const uint8_t*>(offsets.data()), sizeof(int64_t) * offsets.size()}}}));
  ASSERT_OK_AND_ASSIGN(const auto store, Open());
  EXPECT_THAT(store->Sample(0), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("outside the values")));
}

TEST_F(TimeSeriesStoreTest, UnknownClass_IsDataLossWhenRead) {
  AddShard({.lengths = {3, 3, 3}, .samples = {1, 1, 1}});
  SetLengths(0, 0, 3);
  manifest_.mutable_classes()->RemoveLast();
  ASSERT_OK_AND_ASSIGN(const auto store, Open());
  EXPECT_OK(store->Sample(1));
  EXPECT_THAT(store->Sample(2), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("class 2 of 2")));
}

}  // namespace
}  // namespace stoker::store
