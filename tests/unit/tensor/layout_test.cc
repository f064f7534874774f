// SPDX-License-Identifier: Apache-2.0
#include "shared/tensor/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shared/tensor/dtype.h"
#include "tests/support/status_matchers.h"

namespace stoker::tensor {
namespace {

using ::stoker::testing::IsOk;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

using uint128 = unsigned __int128;

constexpr std::array kDTypes = {v1::DTYPE_F32, v1::DTYPE_F16, v1::DTYPE_BF16, v1::DTYPE_U8,
                                v1::DTYPE_U16, v1::DTYPE_F64, v1::DTYPE_I64,  v1::DTYPE_I32};

TensorSpec Bytes(std::string name, std::vector<int64_t> shape) { return {std::move(name), v1::DTYPE_U8, shape}; }

// A descriptor of `layout` in the second page of a segment that just holds it.
v1::BatchDescriptor Describe(const Layout& layout) {
  v1::BatchDescriptor batch;
  batch.mutable_segment()->set_size_bytes(kExtentAlignment + layout.extent_bytes());
  batch.set_extent_offset_bytes(kExtentAlignment);
  layout.Describe(&batch);
  return batch;
}

v1::BatchDescriptor ValidDescriptor() {
  return Describe(*Layout::Create({{"a", v1::DTYPE_F32, {8, 3}}, {"b", v1::DTYPE_I64, {8}}}));
}

TEST(TensorSpec, ShapeOfAnyRank_GivesElementsAndBytes) {
  EXPECT_EQ((TensorSpec{"a", v1::DTYPE_F64, {}}.elements()), 1);
  EXPECT_EQ((TensorSpec{"a", v1::DTYPE_F64, {}}.size_bytes()), 8u);
  EXPECT_EQ((TensorSpec{"a", v1::DTYPE_U16, {64, 3, 96, 96}}.size_bytes()), 2u * 64 * 3 * 96 * 96);
  EXPECT_EQ((TensorSpec{"a", v1::DTYPE_F32, {64, 0}}.size_bytes()), 0u);
}

TEST(Layout, NoTensor_IsOneExtentOfAHeader) {
  ASSERT_OK_AND_ASSIGN(const Layout layout, Layout::Create({}));
  EXPECT_EQ(layout.extent_bytes(), kExtentAlignment);
}

TEST(Layout, Tensors_FollowTheHeaderInOrderAtMultiplesOf256) {
  ASSERT_OK_AND_ASSIGN(const Layout layout,
                       Layout::Create({Bytes("one", {1}), Bytes("full", {256}), Bytes("more", {257}), Bytes("z", {})}));
  EXPECT_EQ(layout.offset_bytes(0), 256u);
  EXPECT_EQ(layout.offset_bytes(1), 512u);
  EXPECT_EQ(layout.offset_bytes(2), 768u);
  EXPECT_EQ(layout.offset_bytes(3), 1280u);
  EXPECT_EQ(layout.extent_bytes(), 4096u);
}

TEST(Layout, OneByteOverAPage_TakesAnotherPage) {
  ASSERT_OK_AND_ASSIGN(const Layout page, Layout::Create({Bytes("a", {4096 - 256})}));
  EXPECT_EQ(page.extent_bytes(), 4096u);
  ASSERT_OK_AND_ASSIGN(const Layout more, Layout::Create({Bytes("a", {4096 - 256 + 1})}));
  EXPECT_EQ(more.extent_bytes(), 8192u);
}

TEST(Layout, EmptyTensors_TakeNoBytes) {
  ASSERT_OK_AND_ASSIGN(const Layout layout, Layout::Create({Bytes("a", {0, 5}), Bytes("b", {5, 0}), Bytes("c", {7})}));
  EXPECT_EQ(layout.offset_bytes(0), 256u);
  EXPECT_EQ(layout.offset_bytes(1), 256u);
  EXPECT_EQ(layout.offset_bytes(2), 256u);
  EXPECT_THAT(CheckDescriptor(Describe(layout)), IsOk());
}

TEST(Layout, SameTensors_GiveTheSameOffsets) {
  const std::vector<TensorSpec> tensors = {{"a", v1::DTYPE_F32, {64, 3, 24, 24}}, {"b", v1::DTYPE_I64, {64}}};
  ASSERT_OK_AND_ASSIGN(const Layout first, Layout::Create(tensors));
  ASSERT_OK_AND_ASSIGN(const Layout second, Layout::Create(tensors));
  EXPECT_EQ(Describe(first).SerializeAsString(), Describe(second).SerializeAsString());
}

TEST(Layout, Described_NamesEveryTensorWithItsPlace) {
  const v1::BatchDescriptor batch = ValidDescriptor();
  ASSERT_EQ(batch.tensors_size(), 2);
  EXPECT_EQ(batch.extent_size_bytes(), 4096u);
  EXPECT_EQ(batch.tensors(0).name(), "a");
  EXPECT_EQ(batch.tensors(0).dtype(), v1::DTYPE_F32);
  EXPECT_THAT(batch.tensors(0).shape(), ::testing::ElementsAre(8, 3));
  EXPECT_EQ(batch.tensors(1).name(), "b");
  EXPECT_EQ(batch.tensors(1).offset_bytes(), 512u);
}

TEST(Layout, BadTensor_IsInvalidArgumentThatNamesIt) {
  const auto invalid = [](const char* part) { return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)); };
  EXPECT_THAT(Layout::Create({Bytes("", {1})}), invalid("no name"));
  EXPECT_THAT(Layout::Create({Bytes("a", {1}), Bytes("b", {1}), Bytes("a", {2})}), invalid("tensor a is there twice"));
  EXPECT_THAT(Layout::Create({Bytes("a", {3, -1})}), invalid("tensor a: dimension -1"));
  EXPECT_THAT(Layout::Create({{"a", v1::DTYPE_UNSPECIFIED, {1}}}), invalid("tensor a: unknown dtype 0"));
  EXPECT_THAT(Layout::Create({{"a", static_cast<v1::DType>(99), {1}}}), invalid("tensor a: unknown dtype 99"));
}

TEST(Layout, MoreThan2To62Bytes_IsInvalidArgument) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const auto too_large = StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2^62"));
  EXPECT_THAT(Layout::Create({Bytes("a", {kMost})}), too_large);
  EXPECT_THAT(Layout::Create({Bytes("a", {int64_t{1} << 32, int64_t{1} << 32})}), too_large);
  EXPECT_THAT(Layout::Create({Bytes("a", {kMost, kMost, kMost, kMost})}), too_large);
  EXPECT_THAT(Layout::Create({Bytes("a", {kMost, kMost, 0})}), too_large);  // elements() must not overflow on the way
  EXPECT_THAT(Layout::Create({{"a", v1::DTYPE_F64, {int64_t{1} << 60}}}), too_large);
  const TensorSpec half = Bytes("a", {int64_t{1} << 61});
  EXPECT_THAT(Layout::Create({half, Bytes("b", half.shape)}), too_large);
}

// Random tensors: aligned, in order, disjoint, and inside the extent, none of which wastes a page.
TEST(Layout, RandomTensors_AreAlignedDisjointAndInside) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<TensorSpec> tensors(random() % 6);
    for (size_t i = 0; i < tensors.size(); ++i) {
      tensors[i] = {absl::StrCat("t", i), kDTypes[random() % kDTypes.size()], {}};
      for (uint64_t rank = random() % 4; rank > 0; --rank) tensors[i].shape.push_back(random() % 40);
    }
    ASSERT_OK_AND_ASSIGN(const Layout layout, Layout::Create(tensors));
    uint64_t end = kExtentHeaderBytes;
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ(layout.offset_bytes(i) % kTensorAlignment, 0u);
      EXPECT_GE(layout.offset_bytes(i), end);
      EXPECT_LT(layout.offset_bytes(i), end + kTensorAlignment);
      end = layout.offset_bytes(i) + tensors[i].size_bytes();
    }
    EXPECT_GE(layout.extent_bytes(), end);
    EXPECT_LT(layout.extent_bytes(), end + kExtentAlignment);
    EXPECT_EQ(layout.extent_bytes() % kExtentAlignment, 0u);
    EXPECT_THAT(CheckDescriptor(Describe(layout)), IsOk());
  }
}

using Change = void (*)(v1::BatchDescriptor*);
struct HostileCase {
  const char* name;
  Change change;
  const char* message;
};

const HostileCase kHostile[] = {
    {"no segment", [](v1::BatchDescriptor* b) { b->clear_segment(); }, "segment of 0 bytes"},
    {"extent smaller than its header", [](v1::BatchDescriptor* b) { b->set_extent_size_bytes(255); }, "extent"},
    {"extent larger than the segment", [](v1::BatchDescriptor* b) { b->set_extent_size_bytes(12288); }, "extent"},
    {"extent past the end", [](v1::BatchDescriptor* b) { b->set_extent_offset_bytes(8192); }, "extent"},
    {"extent that wraps around", [](v1::BatchDescriptor* b) { b->set_extent_offset_bytes(-uint64_t{4096}); }, "extent"},
    {"extent of all bytes", [](v1::BatchDescriptor* b) { b->set_extent_size_bytes(UINT64_MAX); }, "extent"},
    {"extent not aligned", [](v1::BatchDescriptor* b) { b->set_extent_offset_bytes(256); }, "extent"},
    {"tensor past the end", [](v1::BatchDescriptor* b) { b->mutable_tensors(1)->set_offset_bytes(4096); }, "tensor b"},
    {"tensor over the end", [](v1::BatchDescriptor* b) { b->mutable_tensors(1)->set_shape(0, 449); }, "tensor b"},
    {"tensor not aligned", [](v1::BatchDescriptor* b) { b->mutable_tensors(1)->set_offset_bytes(513); }, "tensor b"},
    {"tensor in the header", [](v1::BatchDescriptor* b) { b->mutable_tensors(0)->set_offset_bytes(0); }, "tensor a"},
    {"tensor that wraps around",
     [](v1::BatchDescriptor* b) { b->mutable_tensors(1)->set_offset_bytes(-uint64_t{256}); }, "tensor b"},
    {"negative dimension", [](v1::BatchDescriptor* b) { b->mutable_tensors(0)->set_shape(1, -3); }, "dimension -3"},
    {"two negative dimensions",
     [](v1::BatchDescriptor* b) {
       b->mutable_tensors(0)->set_shape(0, -1);
       b->mutable_tensors(0)->set_shape(1, -1);
     },
     "dimension -1"},
    {"bytes that wrap to 0",
     [](v1::BatchDescriptor* b) {
       b->mutable_tensors(0)->set_shape(0, int64_t{1} << 31);
       b->mutable_tensors(0)->set_shape(1, int64_t{1} << 31);
     },
     "2^62"},
    {"unknown dtype", [](v1::BatchDescriptor* b) { b->mutable_tensors(0)->set_dtype(static_cast<v1::DType>(77)); },
     "unknown dtype 77"},
    {"no dtype", [](v1::BatchDescriptor* b) { b->mutable_tensors(0)->clear_dtype(); }, "unknown dtype 0"},
};

TEST(CheckDescriptor, Hostile_IsDataLossThatNamesThePart) {
  ASSERT_THAT(CheckDescriptor(ValidDescriptor()), IsOk());
  for (const HostileCase& hostile : kHostile) {
    v1::BatchDescriptor batch = ValidDescriptor();
    hostile.change(&batch);
    EXPECT_THAT(CheckDescriptor(batch),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("descriptor"), HasSubstr(hostile.message))))
        << hostile.name;
  }
}

TEST(CheckDescriptor, TensorThatEndsWithItsExtent_IsOk) {
  v1::BatchDescriptor batch = ValidDescriptor();
  batch.mutable_tensors(1)->set_shape(0, (4096 - 512) / 8);
  EXPECT_THAT(CheckDescriptor(batch), IsOk());
}

// What must hold for a reader not to leave the segment, in arithmetic that cannot overflow.
bool InsideSegment(const v1::BatchDescriptor& batch) {
  if (uint128{batch.extent_offset_bytes()} + batch.extent_size_bytes() > batch.segment().size_bytes()) return false;
  for (const v1::TensorDescriptor& tensor : batch.tensors()) {
    uint128 bytes = DTypeSize(tensor.dtype());
    for (const int64_t dimension : tensor.shape()) {
      if (dimension < 0) return false;
      // Beyond 2^64 all is outside; to stop there keeps the product below 2^128.
      if (bytes <= UINT64_MAX) bytes *= static_cast<uint64_t>(dimension);
    }
    if (std::count(tensor.shape().begin(), tensor.shape().end(), 0) > 0) bytes = 0;
    if (uint128{tensor.offset_bytes()} + bytes > batch.extent_size_bytes()) return false;
    if (tensor.offset_bytes() % kTensorAlignment != 0 || DTypeSize(tensor.dtype()) == 0) return false;
  }
  return true;
}

uint64_t HostileNumber(std::mt19937_64& random, uint64_t step) {
  switch (random() % 4) {
    case 0:
      return random() % 64 * step;
    case 1:
      return (uint64_t{1} << random() % 64) + (random() % 3 - 1) * (random() % 2 ? step : 1);
    case 2:
      return -(random() % 8 * step);
    default:
      return random() >> random() % 64;
  }
}

TEST(CheckDescriptor, RandomDescriptors_AreNeverAcceptedOutsideTheSegment) {
  std::mt19937_64 random(2);
  int accepted = 0;
  for (int round = 0; round < 300000; ++round) {
    v1::BatchDescriptor batch;
    batch.mutable_segment()->set_size_bytes(HostileNumber(random, 4096));
    batch.set_extent_offset_bytes(HostileNumber(random, 4096));
    batch.set_extent_size_bytes(HostileNumber(random, 4096));
    for (uint64_t n = random() % 3; n > 0; --n) {
      v1::TensorDescriptor* tensor = batch.add_tensors();
      tensor->set_dtype(kDTypes[random() % kDTypes.size()]);
      tensor->set_offset_bytes(HostileNumber(random, 256));
      for (uint64_t rank = random() % 4; rank > 0; --rank) {
        tensor->add_shape(static_cast<int64_t>(random() % 2 ? random() % 10 : HostileNumber(random, 1)));
      }
    }
    if (!CheckDescriptor(batch).ok()) continue;
    ++accepted;
    ASSERT_TRUE(InsideSegment(batch)) << batch.ShortDebugString();
  }
  EXPECT_GT(accepted, 1000);  // else the test says nothing
}

}  // namespace
}  // namespace stoker::tensor
