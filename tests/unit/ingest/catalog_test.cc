// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "shared/base/posix.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DatasetCatalogTest : public ::testing::Test {
 protected:
  // A data set of one series of `value`s.
  IngestResult Add(const std::string& name, const std::string& value) {
    IngestParams params = harness_.Params({harness_.Write(name + ".tsv", "1\t" + value + "\t" + value + "\n")});
    params.name = name;
    ThreadUnitRunner runner(1);
    const absl::StatusOr<IngestResult> result = IngestJob(params, &runner, nullptr).Run();
    EXPECT_OK(result);
    return *result;
  }

  IngestHarness harness_;
};

TEST_F(DatasetCatalogTest, NoCacheDirectory_IsEmpty) {
  ASSERT_OK_AND_ASSIGN(const DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_TRUE(catalog.entries().empty());
  EXPECT_TRUE(catalog.problems().empty());
  EXPECT_EQ(catalog.Find("a"), nullptr);
}

TEST_F(DatasetCatalogTest, Load_FindsWhatWasIngested) {
  const IngestResult result = Add("a", "1");
  ASSERT_OK_AND_ASSIGN(const DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  const DatasetCatalog::Entry* entry = catalog.Find("a");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->store_dir, harness_.StoreDir(result));
  const v1::DatasetInfo brief = DatasetCatalog::Describe(*entry, false);
  EXPECT_EQ(brief.samples(), 1u);
  EXPECT_EQ(brief.kind(), v1::TIME_SERIES);
  EXPECT_FALSE(brief.has_manifest());
  const v1::DatasetInfo full = DatasetCatalog::Describe(*entry, true);
  EXPECT_EQ(full.manifest().SerializeAsString(), result.manifest.SerializeAsString());
  EXPECT_EQ(full.sources_size(), 1);
}

TEST_F(DatasetCatalogTest, Put_AddsAndReplaces) {
  ASSERT_OK_AND_ASSIGN(DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  const IngestResult first = Add("a", "1");
  catalog.Put(first.dataset, first.manifest);
  EXPECT_EQ(catalog.Find("a")->manifest.id(), first.manifest.id());
  const IngestResult second = Add("a", "2");
  catalog.Put(second.dataset, second.manifest);
  EXPECT_EQ(catalog.Find("a")->manifest.id(), second.manifest.id());
  EXPECT_THAT(catalog.RemoveStoreIfUnreferenced(first.manifest.id()), IsOkAndHolds(true));
  EXPECT_THAT(catalog.RemoveStoreIfUnreferenced(second.manifest.id()), IsOkAndHolds(false));
  EXPECT_FALSE(std::filesystem::exists(harness_.StoreDir(first)));
}

TEST_F(DatasetCatalogTest, Drop_RemovesTheStoreWithItsLastName) {
  const IngestResult result = Add("a", "1");
  Add("b", "1");
  ASSERT_OK_AND_ASSIGN(DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_THAT(catalog.Drop("a"), IsOkAndHolds(false));
  EXPECT_TRUE(std::filesystem::exists(harness_.StoreDir(result)));
  EXPECT_THAT(catalog.Drop("a"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("'a'")));
  EXPECT_THAT(catalog.Drop("b"), IsOkAndHolds(true));
  EXPECT_FALSE(std::filesystem::exists(harness_.StoreDir(result)));
  ASSERT_OK_AND_ASSIGN(const DatasetCatalog again, DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_TRUE(again.entries().empty());
}

TEST_F(DatasetCatalogTest, BrokenRecords_AreNamedAndLeftOut) {
  Add("good", "1");
  const IngestResult gone = Add("gone", "2");
  std::filesystem::remove_all(harness_.StoreDir(gone));
  const std::string datasets = harness_.cache_dir() + "/datasets/";
  ASSERT_OK(WriteFileAtomically(datasets + "bad.json", "{\"name\": "));
  ASSERT_OK(WriteFileAtomically(datasets + "escape.json", R"({"name": "escape", "store": "../../data"})"));
  std::filesystem::copy_file(datasets + "good.json", datasets + "other.json");
  ASSERT_OK_AND_ASSIGN(const DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_EQ(catalog.entries().size(), 1u);
  EXPECT_THAT(catalog.problems(), ElementsAre(HasSubstr("bad.json"), HasSubstr("escape.json"),
                                              HasSubstr("data set gone"), HasSubstr("other.json")));
}

TEST_F(DatasetCatalogTest, NamelessStore_IsRemovedWhenAllRecordsAreSound) {
  const IngestResult first = Add("a", "1");
  Add("a", "2");  // the first store has no name now, as if the daemon had been killed before it removed it
  const std::string broken = harness_.cache_dir() + "/datasets/bad.json";
  ASSERT_OK(WriteFileAtomically(broken, "{"));
  ASSERT_OK(DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_TRUE(std::filesystem::exists(harness_.StoreDir(first)));
  std::filesystem::remove(broken);
  ASSERT_OK_AND_ASSIGN(const DatasetCatalog catalog, DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_FALSE(std::filesystem::exists(harness_.StoreDir(first)));
  EXPECT_EQ(catalog.entries().size(), 1u);
}

TEST_F(DatasetCatalogTest, StaleStaging_IsRemovedUnlessItIsYoung) {
  Add("a", "1");
  const std::string staging = harness_.cache_dir() + "/staging/0123";
  std::filesystem::create_directory(staging);
  ASSERT_OK(DatasetCatalog::Load(harness_.cache_dir()));
  EXPECT_TRUE(std::filesystem::exists(staging));
  ASSERT_OK(DatasetCatalog::Load(harness_.cache_dir(), absl::ZeroDuration()));
  EXPECT_FALSE(std::filesystem::exists(staging));
}

TEST(CheckDatasetNameTest, OnlyPlainNames_AreTaken) {
  for (const std::string& name : {std::string("a"), std::string("0-GunPoint_TRAIN.v2"), std::string(128, 'x')}) {
    EXPECT_OK(CheckDatasetName(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string(".a"), std::string("-a"), std::string("a/b"), std::string("a b"),
        std::string(129, 'x'), std::string("a\0", 2), std::string("\xC3\xA4")}) {
    EXPECT_THAT(CheckDatasetName(name), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("data set name")))
        << name;
  }
}

}  // namespace
}  // namespace stoker::ingest
