// SPDX-License-Identifier: Apache-2.0
#include "shared/store/crystal_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/store/crystal_files.h"

namespace stoker::store {
namespace {

using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::AllOf;
using testing::Chain;
using testing::CrystalSample;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CrystalStoreTest : public ::testing::Test {
 protected:
  std::string dir() const { return temp_.File("store"); }
  // Writes the store again with one tensor of its first shard replaced.
  template <typename T>
  absl::Status OpenWith(const std::string& name, const std::vector<T>& values) {
    const std::vector<CrystalSample> samples = {Chain(2, "a"), Chain(3, "b")};
    v1::StoreManifest manifest = testing::WriteCrystalStore(dir(), {samples});
    testing::TensorFile shard = testing::ShardTensors(samples, 2);
    shard.Set(name, {static_cast<int64_t>(values.size())}, values);
    manifest.mutable_shards(0)->set_size_bytes(shard.Write(dir() + "/shard-0.safetensors", {{"place", "record"}}));
    EXPECT_OK(WriteManifest(dir() + "/store.json", manifest));
    const auto store = CrystalStore::Open(dir());
    if (!store.ok()) return store.status();
    return (*store)->Sample(1).status();
  }

  TempDir temp_;
};

TEST_F(CrystalStoreTest, Samples_AreThoseOfTheShardsInOrder) {
  testing::WriteCrystalStore(dir(), {{Chain(2, "a"), Chain(1, "b")}, {Chain(5, "c")}});
  ASSERT_OK_AND_ASSIGN(const auto store, CrystalStore::Open(dir()));
  ASSERT_EQ(store->samples(), 3u);
  ASSERT_OK_AND_ASSIGN(const CrystalView view, store->Sample(2));
  EXPECT_EQ(view.id, "c");
  EXPECT_EQ(view.text, "chain of 5");
  EXPECT_EQ(view.atoms(), 5u);
  EXPECT_EQ(view.edges(), 10u);
  EXPECT_THAT(view.atomic_number, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(view.edge_destination.subspan(0, 4), ElementsAre(1, 4, 0, 2));
  EXPECT_THAT(view.edge_image.subspan(0, 6), ElementsAre(0, 0, 0, -1, 0, 0));
  EXPECT_EQ(view.lattice[0], 5.0);
  EXPECT_THAT(view.target, ElementsAre(2.5));
  ASSERT_EQ(view.sidecars.size(), 1u);
  EXPECT_EQ(*reinterpret_cast<const float*>(view.sidecars[0].data()), 5.0f);
  EXPECT_EQ(store->SampleName(2), "c (/data/crystals.json: record 0)");
  EXPECT_EQ(store->SampleName(3), "sample 3");
  EXPECT_THAT(store->Sample(3), StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("sample 3 of 3")));
}

TEST_F(CrystalStoreTest, Costs_AreOfAllSamples) {
  testing::WriteCrystalStore(dir(), {{Chain(2, "a"), Chain(1, "b")}, {Chain(5, "c")}});
  ASSERT_OK_AND_ASSIGN(const auto store, CrystalStore::Open(dir()));
  EXPECT_THAT(store->nodes(), ElementsAre(2, 1, 5));
  EXPECT_THAT(store->edges(), ElementsAre(4, 2, 10));
  EXPECT_THAT(store->triplets(), ElementsAre(8, 8, 4, 2, 4, 2, 20, 20, 10));
  EXPECT_EQ(store->atom_features().size(), 202u);
  EXPECT_TRUE(store->has_text());
  ASSERT_EQ(store->sidecars().size(), 1u);
  EXPECT_EQ(store->sidecars()[0].name, "embedding");
}

TEST_F(CrystalStoreTest, StoreOfAnotherKind_IsFailedPrecondition) {
  v1::StoreManifest manifest = testing::WriteCrystalStore(dir(), {{Chain(2, "a")}});
  manifest.set_kind(v1::TIME_SERIES);
  ASSERT_OK(WriteManifest(dir() + "/store.json", manifest));
  EXPECT_THAT(CrystalStore::Open(dir()), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("crystals")));
}

TEST_F(CrystalStoreTest, OffsetsThatAreNotSound_AreDataLoss) {
  const auto lies_outside = StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("shard-0"), HasSubstr("sample 1")));
  EXPECT_THAT(OpenWith<int64_t>("node_offset", {0, 2, 6}), lies_outside);
  EXPECT_THAT(OpenWith<int64_t>("node_offset", {0, 5, 2}), lies_outside);
  EXPECT_THAT(OpenWith<int64_t>("edge_offset", {0, -4, 10}), lies_outside);
  EXPECT_THAT(OpenWith<int64_t>("id_offset", {0, 1, INT64_MAX}), lies_outside);
  EXPECT_THAT(OpenWith<int64_t>("text_offset", {0, 11, 1000}), lies_outside);
}

TEST_F(CrystalStoreTest, TensorsOfOtherSizes_AreDataLoss) {
  EXPECT_THAT(OpenWith<int64_t>("node_offset", {0, 5}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard-0")));
  EXPECT_THAT(OpenWith<float>("edge_distance", {1, 1}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard-0")));
  EXPECT_THAT(OpenWith<double>("lattice", {1}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard-0")));
  EXPECT_THAT(OpenWith<float>("sidecar.embedding", {1}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("embedding")));
}

TEST_F(CrystalStoreTest, CostsThatAreNotOfTheSamples_AreDataLoss) {
  testing::WriteCrystalStore(dir(), {{Chain(2, "a"), Chain(3, "b")}});
  testing::TensorFile costs;
  costs.Set<int32_t>("nodes", {2}, {2, -3}).Set<int32_t>("edges", {2}, {4, 6});
  costs.Set<int32_t>("triplets", {2, 3}, {1, 1, 1, 1, 1, 1}).Set<int32_t>("text_bytes", {2}, {0, 0});
  costs.Write(dir() + "/costs.safetensors", {});
  EXPECT_THAT(CrystalStore::Open(dir()), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("costs")));
  costs.Set<int32_t>("nodes", {1}, {2}).Write(dir() + "/costs.safetensors", {});
  EXPECT_THAT(CrystalStore::Open(dir()), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("costs")));
}

}  // namespace
}  // namespace stoker::store
