// SPDX-License-Identifier: Apache-2.0
// Compact batches through the assembler, against what the daemon would deliver.
#include "client/gpu/expansion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "client/gpu/assembler.h"
#include "server/transforms/gaf.h"
#include "tests/unit/gpu/crystals.h"
#include "tests/unit/gpu/memory_source.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;
using v1::GafRecipe;

constexpr int64_t kPoints = 96, kChannels = 5;

// Series of `samples` windows, another one for each step.
std::vector<float> SeriesOf(int step, int64_t samples) {
  std::vector<float> series(samples * kPoints * kChannels);
  for (size_t i = 0; i < series.size(); ++i) series[i] = std::sin(0.37f * static_cast<float>(i * (step + 1)));
  return series;
}

std::vector<TensorBytes> SeriesBatch(int step, int64_t samples) {
  std::vector<int64_t> index(samples);
  std::iota(index.begin(), index.end(), int64_t{100} * step);
  return {MakeTensor("series", v1::DTYPE_F32, {samples, kPoints, kChannels}, SeriesOf(step, samples)),
          MakeTensor("index", v1::DTYPE_I64, {samples}, index)};
}

std::vector<std::vector<TensorBytes>> SeriesBatches(absl::Span<const int64_t> samples) {
  std::vector<std::vector<TensorBytes>> batches(samples.size());
  for (size_t step = 0; step < samples.size(); ++step)
    batches[step] = SeriesBatch(static_cast<int>(step), samples[step]);
  return batches;
}

// Samples of each step: a full batch first, then odd ones, one of one sample, and none.
constexpr int64_t kSamples[] = {8, 3, 1, 0, 7};

class ExpansionTest : public OnRuntime {
 protected:
  std::unique_ptr<Assembler> MustOpen(MemorySource& source, const AssemblerOptions& options) {
    absl::StatusOr<std::unique_ptr<Assembler>> assembler = Assembler::Open(runtime_, source.Source(), options);
    EXPECT_OK(assembler);
    return *std::move(assembler);
  }
  DeviceBatch MustNext(Assembler& assembler, Queue queue) {
    absl::StatusOr<std::optional<DeviceBatch>> batch = assembler.Next(queue, absl::Seconds(60));
    EXPECT_OK(batch);
    return **std::move(batch);
  }
  template <typename T>
  std::vector<T> Read(Queue queue, const DeviceBatch& batch, const std::string& name) {
    const absl::StatusOr<DeviceTensor> tensor = batch.Get(name);
    EXPECT_OK(tensor);
    std::vector<T> values(tensor->bytes / sizeof(T));
    const std::vector<uint8_t> bytes = ToHost(queue, tensor->data, tensor->bytes);
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};
STOKER_ON_ALL_RUNTIMES(ExpansionTest);

// As the daemon makes them: [samples, channels, S, S] of each field.
std::pair<std::vector<uint8_t>, std::vector<uint8_t>> ImagesOf(const transforms::GafOptions& options, int step,
                                                               int64_t samples) {
  const std::vector<float> series = SeriesOf(step, samples);
  const uint64_t image = options.image_bytes();
  std::pair<std::vector<uint8_t>, std::vector<uint8_t>> images;
  images.first.resize(samples * kChannels * image);
  images.second.resize(samples * kChannels * image);
  absl::StatusOr<transforms::GafEncoder> encoder = transforms::GafEncoder::Create(options);
  EXPECT_OK(encoder);
  for (int64_t w = 0; w < samples * kChannels; ++w) {
    std::vector<double> window(kPoints);
    for (int64_t t = 0; t < kPoints; ++t) {
      window[t] = series[(w / kChannels * kPoints + t) * kChannels + w % kChannels];
    }
    EXPECT_OK(encoder->Encode(window, options.image_size, {}, images.first.data() + w * image,
                              images.second.data() + w * image));
  }
  encoder->Flush();
  return images;
}

TEST_P(ExpansionTest, Images_AreTheDaemons_BitForBit_AndTheBusCarriesAFiftieth) {
  const std::vector<std::vector<TensorBytes>> batches = SeriesBatches(kSamples);
  for (const v1::DType dtype : {v1::DTYPE_F32, v1::DTYPE_U8, v1::DTYPE_BF16}) {
    MemorySource source(batches);
    AssemblerOptions options;
    options.expand.recipe.mutable_gaf()->set_dtype(dtype);
    const std::unique_ptr<Assembler> assembler = MustOpen(source, options);
    transforms::GafOptions gaf;
    gaf.image_size = kPoints;
    gaf.dtype = dtype;
    const OwnedQueue queue = NewQueue();
    for (int step = 0; step < 5; ++step) {
      const DeviceBatch batch = MustNext(*assembler, queue.get());
      EXPECT_OK(batch.Wait(absl::Seconds(60)));
      const auto [gasf, gadf] = ImagesOf(gaf, step, kSamples[step]);
      EXPECT_TRUE(Read<uint8_t>(queue.get(), batch, "gasf") == gasf) << step;
      EXPECT_TRUE(Read<uint8_t>(queue.get(), batch, "gadf") == gadf) << step;
      EXPECT_EQ(batch.Get("gasf")->shape, (std::vector<int64_t>{kSamples[step], kChannels, kPoints, kPoints}));
      EXPECT_EQ(Read<int64_t>(queue.get(), batch, "index").size(), static_cast<size_t>(kSamples[step]));
      EXPECT_EQ(batch.expanded_bytes(), gasf.size() + gadf.size());
    }
    EXPECT_GT(assembler->report().expanded_bytes, 0u);
    // Two float32 images of 96 x 96 for 96 points: 192 times the series.
    if (dtype == v1::DTYPE_F32) {
      EXPECT_GE(assembler->report().expanded_bytes, 50 * assembler->report().uploaded_bytes);
    }
  }
}

// A place that was never handed out is filled again only when what was made in it is done.
TEST_P(ExpansionTest, Restarts_WhileImagesAreMade_GiveTheSameImages) {
  MemorySource source(SeriesBatches({8, 8, 8, 8}));
  AssemblerOptions options;
  options.depth = 3;
  options.expand.recipe.mutable_gaf()->set_dtype(v1::DTYPE_U8);
  const std::unique_ptr<Assembler> assembler = MustOpen(source, options);
  transforms::GafOptions gaf;
  gaf.image_size = kPoints;
  gaf.dtype = v1::DTYPE_U8;
  const OwnedQueue queue = NewQueue();
  for (int round = 0; round < 12; ++round) {
    v1::Position position;
    position.set_step(round % 4);
    ASSERT_OK(assembler->Restart([&]() -> absl::StatusOr<v1::Position> {
      source.SeekTo(position);
      return position;
    }));
    const DeviceBatch batch = MustNext(*assembler, queue.get());
    EXPECT_TRUE(Read<uint8_t>(queue.get(), batch, "gasf") == ImagesOf(gaf, round % 4, 8).first) << round;
  }
}

TEST_P(ExpansionTest, ReducedImages_OfAFixedRange_AreTheDaemons) {
  MemorySource source({SeriesBatch(0, 4)});
  AssemblerOptions options;
  GafRecipe* const recipe = options.expand.recipe.mutable_gaf();
  recipe->set_image_size(31);
  recipe->set_overlapping(true);
  recipe->set_scale(GafRecipe::FIXED);
  recipe->mutable_fixed_range()->set_low(-0.5);
  recipe->mutable_fixed_range()->set_high(0.75);
  recipe->add_fields(GafRecipe::GADF);
  const std::unique_ptr<Assembler> assembler = MustOpen(source, options);
  transforms::GafOptions gaf;
  gaf.image_size = 31;
  gaf.overlapping = true;
  gaf.scale = GafRecipe::FIXED;
  gaf.fixed_range = {-0.5, 0.75};
  const OwnedQueue queue = NewQueue();
  const DeviceBatch batch = MustNext(*assembler, queue.get());
  EXPECT_TRUE(Read<uint8_t>(queue.get(), batch, "gadf") == ImagesOf(gaf, 0, 4).second);
  EXPECT_THAT(batch.Get("gasf"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(ExpansionTest, SampleThatHasNoImage_IsNamed_ByTheBatchAndByALaterNext) {
  std::vector<std::vector<TensorBytes>> batches = SeriesBatches({4, 4, 4});
  const float nan = NAN;
  std::memcpy(batches[1][0].bytes.data() + 2 * kPoints * kChannels * sizeof(float), &nan, sizeof(nan));
  MemorySource source(batches);
  AssemblerOptions options;
  options.expand.recipe.mutable_gaf();
  const std::unique_ptr<Assembler> assembler = MustOpen(source, options);
  const OwnedQueue queue = NewQueue();
  EXPECT_OK(MustNext(*assembler, queue.get()).Wait(absl::Seconds(60)));
  absl::Status status;
  for (int tries = 0; tries < 1000 && status.ok(); ++tries) {
    const auto batch = assembler->Next(queue.get(), absl::Seconds(60));
    status = batch.status();
    if (batch.ok() && batch->has_value() && (*batch)->step() == 1) {
      EXPECT_THAT((*batch)->Wait(absl::Seconds(60)),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sample 2 of the batch")));
    }
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(":1: sample 2 of the batch")));
  EXPECT_THAT(assembler->Next(queue.get()), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_P(ExpansionTest, Ceiling_CountsWhatIsMade) {
  MemorySource source({SeriesBatch(0, 8)});
  AssemblerOptions options;
  options.expand.recipe.mutable_gaf();
  options.device_bytes_limit = int64_t{2} * 8 * kChannels * kPoints * kPoints * 4;  // the images without the series
  EXPECT_THAT(Assembler::Open(runtime_, source.Source(), options),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("the limit is 2.81 MiB")));
  options.device_bytes_limit += int64_t{64} << 10;
  EXPECT_EQ(MustOpen(source, options)->report().depth, 1);
}

TEST_P(ExpansionTest, WhatCannotBeMade_IsRefusedAtOpen) {
  MemorySource source({SeriesBatch(0, 8)});
  const auto open = [&](auto change) {
    AssemblerOptions options;
    change(options.expand);
    return Assembler::Open(runtime_, source.Source(), options).status();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->add_fields(GafRecipe::STATS); }),
              StatusIs(kInvalid, HasSubstr("fields")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->set_image_size(97); }),
              StatusIs(kInvalid, HasSubstr("image_size")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->set_dtype(v1::DTYPE_F64); }),
              StatusIs(kInvalid, HasSubstr("dtype")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->set_scale(GafRecipe::CHANNEL); }),
              StatusIs(kInvalid, HasSubstr("channel_ranges")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->set_scale(GafRecipe::FIXED); }),
              StatusIs(kInvalid, HasSubstr("fixed_range")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_gaf()->mutable_sample_range()->set_high(2); }),
              StatusIs(kInvalid, HasSubstr("sample_range")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_graph()->add_tensors("rbf"); }),
              StatusIs(kInvalid, HasSubstr("r: is not in the batches")));
  EXPECT_THAT(open([](ExpandOptions& e) { e.recipe.mutable_graph()->add_tensors("lattice"); }),
              StatusIs(kInvalid, HasSubstr("lattice: is not made")));
}

class CrystalExpansionTest : public ExpansionTest {
 protected:
  static constexpr int64_t kTableRows = 6, kFeatures = 9;

  CrystalExpansionTest() {
    for (const std::vector<int64_t>& atoms : {std::vector<int64_t>{5, 1, 3, 12}, {2}, {}, {4, 4}}) {
      Crystals crystals = MakeCrystals(atoms, 12, std::vector<int>(atoms.size(), 1));
      triplets_.push_back(LineGraphOf(crystals, LineGraphArgs::kDgl, INFINITY));
      crystals.num_triplets = triplets_.back().per_graph;
      crystals_.push_back(crystals);
      batches_.push_back(Tensors(crystals));
    }
    for (const char* name : {"x", "rbf", "ptr", "batch", "lg_edge_index", "cos"}) {
      options_.expand.recipe.mutable_graph()->add_tensors(name);
    }
  }

  static std::vector<TensorBytes> Tensors(const Crystals& c) {
    const auto graphs = static_cast<int64_t>(c.num_nodes.size());
    std::vector<int64_t> numbers(c.nodes());
    for (size_t n = 0; n < numbers.size(); ++n) numbers[n] = static_cast<int64_t>(n) % kTableRows;
    std::vector<float> table(kTableRows * kFeatures);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(i) / 7;
    return {MakeTensor("num_nodes", v1::DTYPE_I64, {graphs}, c.num_nodes),
            MakeTensor("num_edges", v1::DTYPE_I64, {graphs}, c.num_edges),
            MakeTensor("num_triplets", v1::DTYPE_I64, {graphs}, c.num_triplets),
            MakeTensor("atomic_number", v1::DTYPE_I64, {c.nodes()}, numbers),
            MakeTensor("atom_features", v1::DTYPE_F32, {kTableRows, kFeatures}, table),
            MakeTensor("edge_index", v1::DTYPE_I64, {2, c.edges()}, c.edge_index),
            MakeTensor("r", v1::DTYPE_F32, {c.edges(), 3}, c.r)};
  }

  std::vector<Crystals> crystals_;
  std::vector<Triplets> triplets_;
  std::vector<std::vector<TensorBytes>> batches_;
  AssemblerOptions options_;
};
STOKER_ON_ALL_RUNTIMES(CrystalExpansionTest);

TEST_P(CrystalExpansionTest, AllTensors_OfOneLaunch_AreTheDefinitions) {
  MemorySource source(batches_);
  const std::unique_ptr<Assembler> assembler = MustOpen(source, options_);
  const OwnedQueue queue = NewQueue();
  for (size_t step = 0; step < batches_.size(); ++step) {
    const DeviceBatch batch = MustNext(*assembler, queue.get());
    EXPECT_OK(batch.Wait(absl::Seconds(60)));
    const Crystals& c = crystals_[step];
    EXPECT_EQ(Read<int64_t>(queue.get(), batch, "ptr"), c.ptr());
    EXPECT_EQ(Read<int64_t>(queue.get(), batch, "batch"), c.batch());
    EXPECT_EQ(Read<int64_t>(queue.get(), batch, "lg_edge_index"), triplets_[step].pairs);
    const std::vector<float> cosines = Read<float>(queue.get(), batch, "cos");
    for (size_t t = 0; t < cosines.size(); ++t) ASSERT_NEAR(cosines[t], triplets_[step].cosines[t], 1e-6);
    const std::vector<float> rbf = Read<float>(queue.get(), batch, "rbf"), x = Read<float>(queue.get(), batch, "x");
    ASSERT_EQ(rbf.size(), static_cast<size_t>(c.edges() * 80));
    for (size_t i = 0; i < rbf.size(); ++i) {
      // Of r, whose length may differ in its last bit.
      const double from_centre = c.distance[i / 80] - static_cast<double>(i % 80) * 8.0 / 79;
      ASSERT_NEAR(rbf[i], std::exp(-79 / 8.0 * from_centre * from_centre), 5e-6);
    }
    ASSERT_EQ(x.size(), static_cast<size_t>(c.nodes() * kFeatures));
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t row = i / kFeatures % kTableRows;
      ASSERT_EQ(x[i], static_cast<float>(row * kFeatures + i % kFeatures) / 7);
    }
  }
}

TEST_P(CrystalExpansionTest, BatchLargerThanWasAnnounced_IsResourceExhausted_NotMemoryOverrun) {
  MemorySource source(batches_);
  BatchSource announced = source.Source();
  announced.info.mutable_largest()->set_triplets(1000);
  announced.info.mutable_largest()->set_nodes(10);
  announced.info.mutable_largest()->set_edges(100);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Assembler> assembler,
                       Assembler::Open(runtime_, std::move(announced), options_));
  const OwnedQueue queue = NewQueue();
  EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(60)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("larger than was announced")));
  EXPECT_EQ(source.segment().leased(), 0u);
}

TEST_P(CrystalExpansionTest, CountsThatDoNotFit_AreDataLoss) {
  for (const size_t count : {0, 1}) {
    std::vector<std::vector<TensorBytes>> batches = {batches_[0]};
    ++reinterpret_cast<int64_t*>(batches[0][count].bytes.data())[1];
    MemorySource source(batches);
    const std::unique_ptr<Assembler> assembler = MustOpen(source, options_);
    const OwnedQueue queue = NewQueue();
    EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(60)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("add up to")));
  }
  std::vector<std::vector<TensorBytes>> batches = {batches_[0]};
  reinterpret_cast<int64_t*>(batches[0][2].bytes.data())[0] = -5;
  MemorySource source(batches);
  const std::unique_ptr<Assembler> assembler = MustOpen(source, options_);
  const OwnedQueue queue = NewQueue();
  EXPECT_THAT(assembler->Next(queue.get(), absl::Seconds(60)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("num_triplets[0] is -5")));
}

// One call after the other fails; whatever happens, leases and memory come back.
TEST(ExpansionFaultTest, EachCallThatFails_LosesNothing) {
  const std::vector<std::vector<TensorBytes>> batches = SeriesBatches({1, 2, 1, 2});
  int64_t calls = 1;
  for (int64_t call = HostFaults::kNever; call < calls; ++call) {
    MemorySource source(batches);
    std::shared_ptr<HostRuntime> runtime =
        HostRuntime::Create({.seed = 9, .max_delay = absl::Microseconds(30), .fail_call = call});
    {
      AssemblerOptions options;
      options.expand.recipe.mutable_gaf()->set_image_size(8);
      const absl::StatusOr<OwnedQueue> queue = OwnQueue(*runtime);
      auto assembler = queue.ok() ? Assembler::Open(runtime, source.Source(), options) : queue.status();
      absl::Status status = assembler.status();
      for (int step = 0; step < 4 && status.ok(); ++step) {
        const auto batch = (*assembler)->Next(queue->get(), absl::Seconds(60));
        status = batch.ok() ? (*batch)->Wait(absl::Seconds(60)) : batch.status();
      }
      if (!status.ok()) {
        EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal, HasSubstr("is to fail")));
      }
      if (call == HostFaults::kNever) calls = runtime->calls();
    }
    EXPECT_EQ(source.segment().leased(), 0u) << call;
    EXPECT_EQ(runtime->live(), HostRuntime::Live{}) << call;
  }
}

}  // namespace
}  // namespace stoker::gpu
