// SPDX-License-Identifier: Apache-2.0
// The kernels of crystal graphs against the definitions in proto/stoker/v1/recipe.proto, written down plainly in
// float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "stoker/batch.h"
#include "tests/unit/gpu/crystals.h"
#include "tests/unit/gpu/runtimes.h"

namespace stoker::gpu {
namespace {

class GraphKernelTest : public OnRuntime {
 protected:
  // Runs the calls as one launch and waits.
  void Launch(const std::vector<KernelCall>& calls) {
    Program program;
    for (const KernelCall& call : calls) program.calls[program.count++] = call;
    const OwnedQueue queue = NewQueue();
    ASSERT_OK(runtime_->Launch(queue.get(), program));
    ASSERT_OK(runtime_->Drain(queue.get()));
  }
  template <typename T>
  std::vector<T> Read(const DeviceMemory& memory, size_t count) {
    std::vector<T> values(count);
    const std::vector<uint8_t> bytes = ToHost(memory.get(), count * sizeof(T));
    if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  DeviceMemory Output(uint64_t bytes) { return ToDevice(std::vector<uint8_t>(bytes, 0xee)); }

  // As indices of either width.
  DeviceMemory Indices(const std::vector<int64_t>& values, Element dtype) {
    if (dtype == Element::kI64) return ToDevice(values);
    return ToDevice(std::vector<int32_t>(values.begin(), values.end()));
  }
  std::vector<int64_t> ReadIndices(const DeviceMemory& memory, size_t count, Element dtype) {
    if (dtype == Element::kI64) return Read<int64_t>(memory, count);
    const std::vector<int32_t> narrow = Read<int32_t>(memory, count);
    return {narrow.begin(), narrow.end()};
  }

  struct LineGraph {
    std::vector<int64_t> pairs;  // [2, triplets]
    std::vector<float> cosines;
    uint32_t error;
  };
  LineGraph OnDevice(const Crystals& crystals, LineGraphArgs::Mode mode, float cutoff, Element index, bool distances) {
    const int64_t edges = crystals.edges(),
                  triplets = std::accumulate(crystals.num_triplets.begin(), crystals.num_triplets.end(), int64_t{0});
    const DeviceMemory edge_index = Indices(crystals.edge_index, index), r = ToDevice(crystals.r),
                       distance = ToDevice(crystals.distance), nodes = Indices(crystals.num_nodes, index),
                       num_edges = Indices(crystals.num_edges, index),
                       num_triplets = Indices(crystals.num_triplets, index),
                       error = ToDevice(std::vector<uint32_t>{kNoError});
    const DeviceMemory pairs = Output(triplets * 16), cosines = Output(triplets * 4);
    LineGraphArgs args = {};
    args.edge_index = edge_index.get();
    args.r = static_cast<const float*>(r.get());
    args.distance = distances ? static_cast<const float*>(distance.get()) : nullptr;
    args.num_nodes = nodes.get();
    args.num_edges = num_edges.get();
    args.num_triplets = num_triplets.get();
    args.lg_edge_index = pairs.get();
    args.cosines = cosines.get();
    args.graphs = static_cast<int64_t>(crystals.num_nodes.size());
    args.edges = edges;
    args.triplets = triplets;
    args.cutoff = cutoff;
    args.mode = mode;
    args.index_dtype = index;
    args.dtype = Element::kF32;
    Launch({CallOf(args, static_cast<uint32_t*>(error.get()))});
    return {ReadIndices(pairs, 2 * triplets, index), Read<float>(cosines, triplets), Read<uint32_t>(error, 1)[0]};
  }
};
STOKER_ON_ALL_RUNTIMES(GraphKernelTest);

TEST_P(GraphKernelTest, LineGraph_OfEveryKindAndIndexType_IsTheDefinition) {
  for (const auto mode : {LineGraphArgs::kDgl, LineGraphArgs::kTorch, LineGraphArgs::kM3gnet}) {
    for (const Element index : {Element::kI64, Element::kI32}) {
      for (const float cutoff : {std::numeric_limits<float>::infinity(), 2.5f}) {
        // Among them one atom alone, one without edges, and one of more edges than a block has threads.
        Crystals crystals = MakeCrystals({5, 1, 3, 1, 40, 2}, /*neighbours=*/13, {0, 1, 1, 0, 1, 1});
        const Triplets want = LineGraphOf(crystals, mode, cutoff);
        crystals.num_triplets = want.per_graph;
        const LineGraph got = OnDevice(crystals, mode, cutoff, index, /*distances=*/cutoff < 3);
        EXPECT_EQ(got.error, kNoError);
        EXPECT_TRUE(got.pairs == want.pairs) << "mode " << mode << ", cutoff " << cutoff;
        ASSERT_EQ(got.cosines.size(), want.cosines.size());
        for (size_t t = 0; t < want.cosines.size(); ++t) ASSERT_NEAR(got.cosines[t], want.cosines[t], 1e-6) << t;
      }
    }
  }
}

TEST_P(GraphKernelTest, BatchWithoutGraphs_GivesNothing) {
  const Crystals none = MakeCrystals({}, 3, {});
  const LineGraph got = OnDevice(none, LineGraphArgs::kDgl, 1e9f, Element::kI64, true);
  EXPECT_TRUE(got.pairs.empty());
  EXPECT_EQ(got.error, kNoError);
}

TEST_P(GraphKernelTest, WrongNumberOfTriplets_IsAnErrorOfThatGraph_AndNothingIsWrittenBeyond) {
  for (const int64_t wrong : {-1, 1}) {
    Crystals crystals = MakeCrystals({4, 6, 5}, 9, {1, 1, 1});
    crystals.num_triplets = LineGraphOf(crystals, LineGraphArgs::kDgl, 1e9f).per_graph;
    crystals.num_triplets[1] += wrong;
    EXPECT_EQ(OnDevice(crystals, LineGraphArgs::kDgl, 1e9f, Element::kI64, true).error, 1u);
  }
}

TEST_P(GraphKernelTest, EdgesThatAreNoGraph_AreAnError_AndNothingIsReadBeyond) {
  Crystals crystals = MakeCrystals({4, 6}, 9, {1, 1});
  crystals.num_triplets = LineGraphOf(crystals, LineGraphArgs::kDgl, 1e9f).per_graph;
  for (int64_t& node : crystals.edge_index) node = node % 2 == 0 ? int64_t{1} << 40 : -node;
  EXPECT_EQ(OnDevice(crystals, LineGraphArgs::kDgl, 1e9f, Element::kI64, true).error, 0u);
}

TEST_P(GraphKernelTest, Rbf_IsWithinItsBound_InEveryType) {
  const std::vector<float> distances = {0.0f, 0.5f, 1.2345678f, 3.9999998f, 7.999f, 8.0f, 20.0f};
  std::vector<float> r;
  for (const float d : distances) r.insert(r.end(), {0.6f * d, 0.0f, -0.8f * d});
  const DeviceMemory device_distances = ToDevice(distances), device_r = ToDevice(r);
  for (const int64_t bins : {80, 7, 2}) {
    RbfArgs args = {};
    args.edges = static_cast<int64_t>(distances.size());
    args.bins = bins;
    args.low = 0.0;
    args.step = 8.0 / static_cast<double>(bins - 1);
    args.gamma = 1.0 / args.step;
    for (const bool from_r : {false, true}) {
      for (const Element dtype : {Element::kF32, Element::kF16, Element::kBf16}) {
        const size_t count = distances.size() * bins;
        const DeviceMemory out = Output(count * 4);
        args.dtype = dtype;
        args.distance = from_r ? nullptr : static_cast<const float*>(device_distances.get());
        args.r = static_cast<const float*>(device_r.get());
        args.rbf = out.get();
        Launch({CallOf(args)});
        const std::vector<float> wide = dtype == Element::kF32 ? Read<float>(out, count) : std::vector<float>();
        const std::vector<uint16_t> narrow =
            dtype != Element::kF32 ? Read<uint16_t>(out, count) : std::vector<uint16_t>();
        for (size_t i = 0; i < count; ++i) {
          const float* const v = &r[i / bins * 3];
          const double d = from_r ? static_cast<float>(std::hypot(double{v[0]}, v[1], v[2])) : distances[i / bins];
          const double from_centre = d - args.step * static_cast<double>(i % bins);
          const double want = std::exp(-args.gamma * from_centre * from_centre);
          const float got = dtype == Element::kF32   ? wide[i]
                            : dtype == Element::kF16 ? Half{narrow[i]}.ToFloat()
                                                     : BFloat16{narrow[i]}.ToFloat();
          const double unit = dtype == Element::kF32 ? 0.0 : dtype == Element::kF16 ? 0x1p-11 : 0x1p-8;
          ASSERT_NEAR(got, want, 0x1p-22 + unit * want + (from_r ? 1e-7 : 0)) << i << " of " << bins;
        }
      }
    }
  }
}

TEST_P(GraphKernelTest, Features_AreTheRowsOfTheTable_AndAnUnknownRowIsAnError) {
  constexpr int64_t kRows = 11, kFeatures = 23;
  std::vector<float> table(kRows * kFeatures);
  for (size_t i = 0; i < table.size(); ++i) table[i] = std::sin(static_cast<float>(i)) * 1000.0f;
  std::vector<int64_t> numbers = {3, 0, 10, 3, 7};
  const DeviceMemory device_table = ToDevice(table);
  FeatureArgs args = {};
  args.table = static_cast<const float*>(device_table.get());
  args.nodes = 5;
  args.features = kFeatures;
  args.table_rows = kRows;
  args.dtype = Element::kF32;
  for (const Element index : {Element::kI64, Element::kI32}) {
    for (const bool bad : {false, true}) {
      numbers[2] = bad ? 11 : 10;
      numbers[4] = bad ? -1 : 7;
      const DeviceMemory rows = Indices(numbers, index), x = Output(5 * kFeatures * 4),
                         error = ToDevice(std::vector<uint32_t>{kNoError});
      args.rows = rows.get();
      args.x = x.get();
      args.index_dtype = index;
      Launch({CallOf(args, static_cast<uint32_t*>(error.get()))});
      const std::vector<float> got = Read<float>(x, 5 * kFeatures);
      for (int64_t i = 0; i < 5 * kFeatures; ++i) {
        const int64_t row = numbers[i / kFeatures];
        ASSERT_EQ(got[i], row < 0 || row >= kRows ? 0.0f : table[row * kFeatures + i % kFeatures]) << i;
      }
      EXPECT_EQ(Read<uint32_t>(error, 1)[0], bad ? 2u : kNoError);
    }
  }
}

TEST_P(GraphKernelTest, Batch_NumbersNodesAndEdgesOfAllGraphs) {
  const Crystals crystals = MakeCrystals({5, 1, 300, 2, 7}, 4, {1, 0, 1, 1, 1});
  for (const Element index : {Element::kI64, Element::kI32}) {
    const auto graphs = static_cast<int64_t>(crystals.num_nodes.size());
    const int64_t nodes = crystals.nodes(), edges = crystals.edges();
    const DeviceMemory num_nodes = Indices(crystals.num_nodes, index), num_edges = Indices(crystals.num_edges, index),
                       local = Indices(crystals.local_edge_index(), index);
    const DeviceMemory ptr = Output((graphs + 1) * 8), batch = Output(nodes * 8), edge_index = Output(2 * edges * 8);
    BatchArgs args = {};
    args.num_nodes = num_nodes.get();
    args.num_edges = num_edges.get();
    args.local_edges = local.get();
    args.ptr = ptr.get();
    args.batch = batch.get();
    args.edge_index = edge_index.get();
    args.graphs = graphs;
    args.nodes = nodes;
    args.edges = edges;
    args.index_dtype = index;
    Launch({CallOf(args)});
    EXPECT_EQ(ReadIndices(edge_index, 2 * edges, index), crystals.edge_index);
    EXPECT_EQ(ReadIndices(batch, nodes, index), crystals.batch());
    EXPECT_EQ(ReadIndices(ptr, graphs + 1, index), crystals.ptr());
  }
}

TEST_P(GraphKernelTest, BatchOfNoGraphs_HasOnePointer) {
  const DeviceMemory ptr = Output(8);
  BatchArgs args = {};
  args.ptr = ptr.get();
  args.index_dtype = Element::kI64;
  Launch({CallOf(args)});
  EXPECT_EQ(Read<int64_t>(ptr, 1)[0], 0);
}

TEST(ElementsTest, Half_AndBfloat_RoundToNearestEven_ForEveryValueAndWhatLiesBetween) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float half = Half{static_cast<uint16_t>(bits)}.ToFloat(),
                wide = BFloat16{static_cast<uint16_t>(bits)}.ToFloat();
    EXPECT_TRUE(std::isnan(half) || ToHalf(half) == bits) << bits;
    EXPECT_TRUE(std::isnan(wide) || ToBfloat(wide) == bits) << bits;
    // Between two neighbours: the even one; a little beside: the nearer one.
    const auto next = static_cast<uint16_t>(bits + 1);
    if ((bits & 0x7fff) < 0x7bff) {
      const float middle = 0.5f * (half + Half{next}.ToFloat());
      EXPECT_EQ(ToHalf(middle), bits % 2 == 0 ? bits : next);
      EXPECT_EQ(ToHalf(std::nextafter(middle, half)), bits);
      EXPECT_EQ(ToHalf(std::nextafter(middle, Half{next}.ToFloat())), next);
    }
  }
  EXPECT_EQ(ToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(ToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(ToHalf(-1e30f), 0xfc00);
  EXPECT_TRUE(std::isnan(Half{ToHalf(NAN)}.ToFloat()));
  EXPECT_TRUE(std::isnan(BFloat16{ToBfloat(NAN)}.ToFloat()));
  EXPECT_EQ(ToBfloat(BitCast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(ToBfloat(BitCast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(ToBfloat(BitCast<float>(0x3f808001u)), 0x3f81);
}

}  // namespace
}  // namespace stoker::gpu
