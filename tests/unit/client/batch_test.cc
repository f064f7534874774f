// SPDX-License-Identifier: Apache-2.0
#include "stoker/batch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "client/src/batch_data.h"
#include "shared/segment/header.h"
#include "shared/tensor/layout.h"
#include "tests/support/status_matchers.h"

namespace stoker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

class CountingOwner : public client::LeaseOwner {
 public:
  void Release(uint64_t lease) override { released.push_back(lease); }
  std::vector<uint64_t> released;
};

// An extent in ordinary memory with a tensor "x" f32 [2, 3] and "empty" u8 [0, 4].
class BatchTest : public ::testing::Test {
 protected:
  BatchTest()
      : layout_(*tensor::Layout::Create({{"x", v1::DTYPE_F32, {2, 3}}, {"empty", v1::DTYPE_U8, {0, 4}}})),
        extent_(static_cast<uint8_t*>(::aligned_alloc(4096, layout_.extent_bytes())), &::free) {
    auto* header = reinterpret_cast<segment::ExtentHeader*>(extent_.get());
    header->magic = segment::kExtentMagic;
    segment::WriteSequence(extent_.get(), 9);
    const float values[6] = {0, 1, 2, 3, 4, 5};
    std::memcpy(extent_.get() + layout_.offset_bytes(0), values, sizeof(values));
  }

  std::shared_ptr<client::BatchData> Data() {
    v1::BatchDescriptor descriptor;
    descriptor.set_epoch(1);
    descriptor.set_step(2);
    descriptor.set_samples(2);
    descriptor.set_sequence(9);
    layout_.Describe(&descriptor);
    return std::make_shared<client::BatchData>(descriptor, extent_.get(), extent_, false);
  }

  tensor::Layout layout_;
  std::shared_ptr<uint8_t> extent_;
};

TEST_F(BatchTest, Get_GivesDataShapeAndStrides) {
  const Batch batch(Data());
  ASSERT_OK_AND_ASSIGN(const TensorView<float> x, batch.Get<float>("x"));
  EXPECT_THAT(x.data(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(x.shape(), ElementsAre(2, 3));
  EXPECT_THAT(x.strides(), ElementsAre(3, 1));
  EXPECT_EQ(batch.epoch(), 1u);
  EXPECT_EQ(batch.step(), 2u);
  EXPECT_EQ(batch.samples(), 2u);
}

TEST_F(BatchTest, Get_OfAnEmptyTensor_GivesNoData) {
  ASSERT_OK_AND_ASSIGN(const TensorView<uint8_t> empty, Batch(Data()).Get<uint8_t>("empty"));
  EXPECT_TRUE(empty.data().empty());
  EXPECT_THAT(empty.shape(), ElementsAre(0, 4));
}

TEST_F(BatchTest, Get_WithAnotherType_NamesBoth) {
  EXPECT_THAT(Batch(Data()).Get<Half>("x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tensor x is f32, asked for as f16")));
}

TEST_F(BatchTest, Get_OfAnUnknownName_NamesThoseThatThereAre) {
  EXPECT_THAT(Batch(Data()).GetRaw("y"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("x, empty")));
}

TEST_F(BatchTest, Lease_GoesBackWithTheLastCopyOrView) {
  auto owner = std::make_shared<CountingOwner>();
  auto data = Data();
  data->AttachLease(owner, 42);
  TensorView<float> view;
  {
    Batch batch(std::move(data));
    const Batch copy = batch;
    batch = Batch();
    ASSERT_OK_AND_ASSIGN(view, copy.Get<float>("x"));
  }
  EXPECT_TRUE(owner->released.empty());
  EXPECT_EQ(view.data()[5], 5);
  view = {};
  EXPECT_THAT(owner->released, ElementsAre(42));
}

TEST_F(BatchTest, Check_WhenTheExtentIsUsedAgain_IsAborted) {
  const Batch batch(Data());
  EXPECT_THAT(batch.Check(), IsOk());
  segment::WriteSequence(extent_.get(), 10);
  EXPECT_THAT(batch.Check(), StatusIs(absl::StatusCode::kAborted, HasSubstr("batch 1:2")));
}

TEST_F(BatchTest, Check_OfMemoryThatIsNoExtent_IsDataLoss) {
  extent_.get()[3] ^= 1;
  EXPECT_THAT(Batch(Data()).Check(), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(HalfTest, ToFloat_OfAllKindsOfNumbers) {
  EXPECT_EQ(Half{0x3c00}.ToFloat(), 1.0f);
  EXPECT_EQ(Half{0xc000}.ToFloat(), -2.0f);
  EXPECT_EQ(Half{0x7bff}.ToFloat(), 65504.0f);
  EXPECT_EQ(Half{0x0001}.ToFloat(), std::ldexp(1.0f, -24));
  EXPECT_TRUE(std::signbit(Half{0x8000}.ToFloat()));
  EXPECT_TRUE(std::isinf(Half{0x7c00}.ToFloat()));
  EXPECT_TRUE(std::isnan(Half{0x7c01}.ToFloat()));
}

TEST(BFloat16Test, ToFloat_IsTheUpperHalfOfAFloat) {
  EXPECT_EQ(BFloat16{0x3f80}.ToFloat(), 1.0f);
  EXPECT_EQ(BFloat16{0xc040}.ToFloat(), -3.0f);
}

}  // namespace
}  // namespace stoker
