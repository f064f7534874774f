// SPDX-License-Identifier: Apache-2.0
// Ingest of crystals from source to store, for each kind of source and for what may be wrong with one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "server/ingest/crystal_merge.h"
#include "server/ingest/crystal_plan.h"
#include "shared/store/crystal_store.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"
#include "tests/unit/ingest/numpy_files.h"
#include "tests/unit/ingest/structures.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::IsOk;
using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;
using Crystal = Options::Crystal;

constexpr absl::StatusCode kBad = absl::StatusCode::kInvalidArgument;

// Conventional cells of textbooks: two atoms and eight.
constexpr char kCsCl[] = "CsCl\n4.12\n1 0 0\n0 1 0\n0 0 1\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n";
constexpr char kSalt[] =
    "NaCl\n5.64\n1 0 0\n0 1 0\n0 0 1\nNa Cl\n4 4\nDirect\n0 0 0\n0.5 0.5 0\n0.5 0 0.5\n0 0.5 0.5\n0.5 0.5 0.5\n"
    "0 0 0.5\n0 0.5 0\n0.5 0 0\n";

std::string Record(const std::string& fields, double a = 4.12, const std::string& second = "Cl") {
  return absl::StrCat("{", fields, fields.empty() ? "" : ", ", "\"atoms\": {\"lattice_mat\": [[", a, ", 0, 0], [0, ", a,
                      ", 0], [0, 0, ", a, "]], \"coords\": [[0, 0, 0], [0.5, 0.5, 0.5]], \"elements\": [\"Cs\", \"",
                      second, "\"], \"cartesian\": false}}");
}

std::string List(const std::vector<std::string>& records) {
  return absl::StrCat("[", absl::StrJoin(records, ",\n"), "]");
}

Options Crystals(const std::vector<std::string>& targets = {}) {
  Options options;
  options.mutable_crystal()->mutable_target()->Assign(targets.begin(), targets.end());
  return options;
}

// ASCII as numpy's "U" has it.
std::string Utf32(absl::string_view text) {
  std::string bytes;
  for (const char c : text) bytes += Little(static_cast<unsigned char>(c), 4);
  return bytes;
}

class CrystalJobTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const store::CrystalStore>> Open(const std::vector<std::string>& sources,
                                                                  const Options& options = {}) {
    result_ = harness_.Ingest(sources, options);
    if (!result_.ok()) return result_.status();
    return store::CrystalStore::Open(harness_.StoreDir(*result_));
  }
  std::string Write(absl::string_view name, absl::string_view bytes) { return harness_.Write(name, bytes); }

  std::vector<std::string> Ids(const store::CrystalStore& store) {
    std::vector<std::string> ids;
    for (uint64_t i = 0; i < store.samples(); ++i) ids.emplace_back(store.Sample(i)->id);
    return ids;
  }

  IngestHarness harness_;
  absl::StatusOr<IngestResult> result_ = absl::UnknownError("not run");
};

TEST_F(CrystalJobTest, IdPropFolder_BecomesAStoreOfGraphs) {
  Write("set/CsCl.vasp", kCsCl);
  Write("set/POSCAR-NaCl.vasp", kSalt);
  Write("set/id_prop.csv", "POSCAR-NaCl.vasp,2.16,8.5\nCsCl,3.99,8.3\n");
  ASSERT_OK_AND_ASSIGN(const auto store, Open({harness_.data_dir() + "/set"}));
  ASSERT_EQ(store->samples(), 2);
  EXPECT_THAT(Ids(*store), ElementsAre("POSCAR-NaCl.vasp", "CsCl"));
  const store::CrystalView salt = *store->Sample(0);
  EXPECT_EQ(salt.atoms(), 8);
  EXPECT_THAT(salt.target, ElementsAre(2.16, 8.5));
  EXPECT_EQ(salt.edges(), 8 * 18);  // 6 and the shell of 12
  EXPECT_THAT(salt.edge_distance.subspan(0, 6), Each(::testing::FloatNear(2.82f, 1e-5f)));
  EXPECT_THAT(salt.triplet_degree, Each(18));
  EXPECT_EQ(store->nodes()[1], 2);
  EXPECT_EQ(store->edges()[1], 2 * 14);  // 8 and the shell of 6, images of the atom itself
  // Line graphs: all pairs of edges through an atom; less each edge of an atom to its own image; ordered pairs.
  EXPECT_THAT(store->triplets().subspan(3, 3), ElementsAre(2 * 14 * 14 - 12, 2 * 14 * 14, 2 * 14 * 13));
  EXPECT_EQ(store->SampleName(0), absl::StrCat("POSCAR-NaCl.vasp (", harness_.data_dir(), "/set/id_prop.csv:1)"));

  const v1::StoreManifest& manifest = store->manifest();
  EXPECT_EQ(manifest.kind(), v1::CRYSTALS);
  EXPECT_EQ(manifest.target(), Options::TARGET_VALUE);
  EXPECT_THAT(manifest.crystals().targets(), ElementsAre("1", "2"));
  EXPECT_EQ(manifest.crystals().atoms(), 10);
  EXPECT_EQ(manifest.crystals().edges(), 144 + 28);
  EXPECT_EQ(manifest.crystals().atoms_each().median(), 5);
  EXPECT_EQ(manifest.crystals().graph().k(), 12);
  EXPECT_EQ(manifest.crystals().graph().graph(), Crystal::KNN);
}

TEST_F(CrystalJobTest, OneTargetOfSeveral_IsPickedByItsNumber) {
  Write("set/a.vasp", kCsCl);
  Write("set/id_prop.csv", "a,1,2,3\n");
  ASSERT_OK_AND_ASSIGN(const auto store, Open({harness_.data_dir() + "/set"}, Crystals({"3", "1"})));
  EXPECT_THAT(store->Sample(0)->target, ElementsAre(3, 1));
  EXPECT_THAT(Open({harness_.data_dir() + "/set"}, Crystals({"4"})),
              StatusIs(kBad, HasSubstr("id_prop.csv:1: missing target: no column '4'")));
  Options none;
  none.set_target(Options::TARGET_NONE);
  ASSERT_OK_AND_ASSIGN(const auto bare, Open({harness_.data_dir() + "/set"}, none));
  EXPECT_EQ(bare->manifest().target(), Options::TARGET_NONE);
}

TEST_F(CrystalJobTest, StructureFiles_AreSamplesNamedLikeThem) {
  Write("set/b.cif",
        "data_x\n_cell_length_a 4\n_cell_length_b 4\n_cell_length_c 4\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_fract_x\n"
        "_atom_site_fract_y\n_atom_site_fract_z\nPo1 0 0 0\n");
  Write("set/a.vasp", kCsCl);
  Write("set/c.vasp", kSalt);
  Write("set/d.xyz", "3\n\nO 0 0 0\nH 0 0 0.96\nH 0.93 0 -0.24\n");
  ASSERT_OK_AND_ASSIGN(const auto store, Open({harness_.data_dir() + "/set"}));
  EXPECT_THAT(Ids(*store), ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(store->manifest().target(), Options::TARGET_NONE);
  const store::CrystalView water = *store->Sample(3);
  EXPECT_THAT(water.lattice, Each(0));
  EXPECT_EQ(water.edges(), 6);  // there are no more
  EXPECT_THAT(water.edge_image, Each(0));
  ASSERT_OK_AND_ASSIGN(const auto one, Open({harness_.data_dir() + "/set/c.vasp"}));
  EXPECT_THAT(Ids(*one), ElementsAre("c"));
  EXPECT_EQ(one->SampleName(0), absl::StrCat("c (", harness_.data_dir(), "/set/c.vasp:1)"));
}

TEST_F(CrystalJobTest, JarvisList_IsReadWithItsTargets) {
  const std::string path = Write(
      "a.json",
      List({Record(R"("jid": "J-1", "gap": 1.5, "dos": [1, 2])"), Record(R"("jid": "J-2", "gap": "na", "dos": [3, 4])"),
            Record(R"("jid": "J-3", "gap": NaN, "dos": [5, 6])"), Record(R"("jid": "J-4", "gap": 2, "dos": [7, 8])")}));
  ASSERT_OK_AND_ASSIGN(const auto store, Open({path}, Crystals({"gap"})));
  EXPECT_THAT(Ids(*store), ElementsAre("J-1", "J-4"));
  EXPECT_THAT(store->Sample(1)->target, ElementsAre(2));
  ASSERT_EQ(store->manifest().skipped_size(), 1);
  EXPECT_EQ(store->manifest().skipped(0).count(), 2);
  EXPECT_EQ(store->manifest().skipped(0).first(), path + ": record 1");
  EXPECT_EQ(store->SampleName(1), absl::StrCat("J-4 (", path, ": record 3)"));
  ASSERT_OK_AND_ASSIGN(const auto dos, Open({path}, Crystals({"dos"})));
  EXPECT_THAT(dos->manifest().crystals().targets(), ElementsAre("dos[0]", "dos[1]"));
  EXPECT_THAT(dos->Sample(2)->target, ElementsAre(5, 6));
  EXPECT_THAT(Open({path}, Crystals({"hse_gap"})),
              StatusIs(kBad, HasSubstr("record 0: missing target: no key 'hse_gap'")));
  EXPECT_THAT(Open({path}, Crystals({"jid"})), StatusIs(kBad, HasSubstr("wrong target: 'jid' is no number")));
}

TEST_F(CrystalJobTest, MatbenchTable_IsReadWithItsIndex) {
  const auto row = [](const std::string& target) {
    return absl::StrCat(
        "[{\"lattice\": {\"matrix\": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}, \"sites\": [{\"species\": "
        "[{\"element\": \"Po\", \"occu\": 1}], \"abc\": [0, 0, 0]}]}, ",
        target, "]");
  };
  const std::string data = absl::StrCat("\"data\": [", row("1.5"), ", ", row("null"), ", ", row("-2"), "]");
  const std::string head = R"("index": ["mb-1", "mb-2", "mb-3"], "columns": ["structure", "gap pbe"])";
  for (const std::string& text : {absl::StrCat("{", head, ", ", data, "}"), absl::StrCat("{", data, ", ", head, "}")}) {
    ASSERT_OK_AND_ASSIGN(const auto store, Open({Write("m.json.gz", Gzip(text))}));
    EXPECT_THAT(Ids(*store), ElementsAre("mb-1", "mb-3"));
    EXPECT_THAT(store->Sample(1)->target, ElementsAre(-2));
    EXPECT_THAT(store->manifest().crystals().targets(), ElementsAre("gap pbe"));
    EXPECT_EQ(store->manifest().skipped(0).count(), 1);
  }
  EXPECT_THAT(Open({Write("m.json", "{\"a\": [1]}")}), StatusIs(kBad, HasSubstr("no table")));
}

TEST_F(CrystalJobTest, ManyRecords_AreCutIntoUnitsAndKeepTheirOrder) {
  std::vector<std::string> records;
  std::string frames;
  for (size_t i = 0; i < kUnitRecords + 100; ++i) {
    records.push_back(Record(absl::StrCat("\"id\": ", i, ", \"n\": ", i)));
    absl::StrAppend(&frames, "1\nid=", i, " n=", i, "\nC 0 0 ", i, "\n");
  }
  for (const std::string& path :
       {Write("a.json", List(records)), Write("b.json.gz", Gzip(List(records))), Write("c.xyz", frames)}) {
    SCOPED_TRACE(path);
    ASSERT_OK_AND_ASSIGN(const auto store, Open({path}, Crystals({"n"})));
    EXPECT_EQ(store->manifest().shards_size(), 2);
    ASSERT_EQ(store->samples(), records.size());
    for (const uint64_t i : {uint64_t{0}, kUnitRecords - 1, kUnitRecords, kUnitRecords + 99}) {
      EXPECT_EQ(store->Sample(i)->id, absl::StrCat(i));
      EXPECT_THAT(store->Sample(i)->target, ElementsAre(i));
    }
  }
  EXPECT_THAT(Open({Write("d.json", List(records) + "]")}), StatusIs(kBad, HasSubstr("text after the end")));
}

TEST_F(CrystalJobTest, Sidecars_GoWithTheirStructures) {
  const std::string path =
      Write("a.json", List({Record(R"("jid": "J-1")"), Record(R"("jid": "J-2")"), Record(R"("jid": "J-3")")}));
  Options options;
  const auto add = [&](const std::string& name, const std::string& file) {
    v1::Sidecar* sidecar = options.mutable_crystal()->add_sidecar();
    sidecar->set_name(name);
    sidecar->set_path(file);
  };
  add("text", Write("t.csv", "id,text\nJ-3,third\nJ-1,\"first, of \"\"all\"\"\"\nother,none\nJ-2,zwei \xC3\xA4\n"));
  add("rows", Write("r.npy", Npy("<f4", "(3, 2)", ItemBytes<float>({1, 2, 3, 4, 5, 6}))));
  add("named",
      Write("n.npz", ZipBytes({{"id.npy", Npy("<U3", "(3,)", absl::StrCat(Utf32("J-2"), Utf32("J-3"), Utf32("J-1")))},
                               {"value.npy", Npy("<i8", "(3,)", ItemBytes<int64_t>({20, 30, 10}))}})));
  ASSERT_OK_AND_ASSIGN(const auto store, Open({path}, options));
  const store::CrystalView last = *store->Sample(2);
  EXPECT_EQ(last.text, "third");
  EXPECT_EQ(store->Sample(0)->text, "first, of \"all\"");
  EXPECT_THAT(store->text_bytes(), ElementsAre(15, 7, 5));
  ASSERT_EQ(store->sidecars().size(), 2);
  EXPECT_EQ(store->sidecars()[0].name, "rows");
  EXPECT_THAT(store->sidecars()[0].shape, ElementsAre(2));
  const std::string rows(reinterpret_cast<const char*>(last.sidecars[0].data()), last.sidecars[0].size());
  const std::string named(reinterpret_cast<const char*>(last.sidecars[1].data()), last.sidecars[1].size());
  EXPECT_EQ(rows, ItemBytes<float>({5, 6}));
  EXPECT_EQ(named, ItemBytes<int64_t>({30}));

  options.mutable_crystal()->clear_sidecar();
  add("text", Write("t.jsonl", "{\"id\": \"J-1\", \"text\": \"one\"}\n\n{\"id\": \"J-2\", \"text\": \"two\"}\n"));
  EXPECT_THAT(Open({path}, options),
              StatusIs(kBad, AllOf(HasSubstr("a.json: record 2: missing in a sidecar"), HasSubstr("'J-3'"))));
  options.mutable_crystal()->set_on_error(Crystal::ON_ERROR_SKIP);
  ASSERT_OK_AND_ASSIGN(const auto two, Open({path}, options));
  EXPECT_THAT(Ids(*two), ElementsAre("J-1", "J-2"));
  EXPECT_EQ(two->Sample(1)->text, "two");
  EXPECT_EQ(two->manifest().skipped(0).reason(), "missing in a sidecar");
}

TEST_F(CrystalJobTest, WrongSidecars_AreNamed) {
  const std::string path = Write("a.json", List({Record(R"("jid": "J-1")"), Record(R"("jid": "J-1")")}));
  const auto open = [&](const std::string& file, const std::string& bytes, const std::string& name = "extra") {
    Options options;
    v1::Sidecar* sidecar = options.mutable_crystal()->add_sidecar();
    sidecar->set_name(name);
    sidecar->set_path(Write(file, bytes));
    return Open({path}, options);
  };
  EXPECT_THAT(open("s.npy", Npy("<f4", "(2, 1)", ItemBytes<float>({1, 2}))), IsOk());  // by order, repeated ids or not
  EXPECT_THAT(open("s.npy", Npy("<f4", "(3, 1)", ItemBytes<float>({1, 2, 3}))),
              StatusIs(kBad, HasSubstr("wrong length: 3 rows for the 2 structures")));
  EXPECT_THAT(open("s.npy", Npy("<U1", "(2,)", absl::StrCat(Utf32("a"), Utf32("b")))),
              StatusIs(kBad, HasSubstr("is not kept in stores")));
  EXPECT_THAT(open("s.npy", "not numpy"), StatusIs(kBad, HasSubstr("s.npy")));
  EXPECT_THAT(open("s.csv", "J-1,text\n"), StatusIs(kBad, HasSubstr("repeated id: 2 structures are called 'J-1'")));
  EXPECT_THAT(open("s.csv", "J-1,text\nJ-1,again\n"), StatusIs(kBad, HasSubstr("s.csv:2: repeated id: 'J-1'")));
  EXPECT_THAT(open("s.csv", "J-1,text,more\n"), StatusIs(kBad, HasSubstr("s.csv:1: wrong columns")));
  EXPECT_THAT(open("s.csv", "J-1,te\xFFxt\n"), StatusIs(kBad, HasSubstr("s.csv:1: the text of 'J-1' is not UTF-8")));
  EXPECT_THAT(open("s.jsonl", "{\"id\": 1}\n"), StatusIs(kBad, HasSubstr("s.jsonl:1: not an object with an id")));
  EXPECT_THAT(open("s.txt", "J-1"), StatusIs(kBad, HasSubstr("crystal.sidecar (--sidecar)")));
  EXPECT_THAT(open("s.csv", "J-1,text\n", "Bad Name"), StatusIs(kBad, HasSubstr("'Bad Name' is no name")));
}

TEST_F(CrystalJobTest, RepeatedIdsAndCloseAtoms_AreCounted) {
  const std::string path =
      Write("a.json", List({Record(R"("jid": "J-1")"), Record(R"("jid": "J-1")"), Record(R"("jid": "J-2")", 0.5)}));
  ASSERT_OK_AND_ASSIGN(const auto store, Open({path}));
  EXPECT_EQ(store->manifest().crystals().repeated_ids(), 2);
  EXPECT_EQ(store->manifest().crystals().close_atoms(), 1);
}

TEST_F(CrystalJobTest, BadStructures_EndTheIngestOrAreLeftOut) {
  Write("set/good.vasp", kCsCl);
  Write("set/flat.vasp", absl::StrReplaceAll(kCsCl, {{"0 1 0", "1 0 0"}}));
  Write("set/odd.vasp", absl::StrReplaceAll(kCsCl, {{"Cs Cl", "Cs Xx"}}));
  Write("set/odd2.vasp", absl::StrReplaceAll(kCsCl, {{"Cs Cl", "Yy Cl"}}));
  Write("set/twin.vasp", absl::StrReplaceAll(kCsCl, {{"0.5 0.5 0.5", "0 0 1"}}));
  Write("set/id_prop.csv",
        "good.vasp,1\nflat.vasp,2\nodd.vasp,3\nnowhere,4\nodd2.vasp,5\ntwin.vasp,6\ngood,na\ngood,x\n");
  const std::string folder = harness_.data_dir() + "/set";
  EXPECT_THAT(Open({folder}), StatusIs(kBad, HasSubstr("id_prop.csv:2: singular lattice")));
  Options options;
  options.mutable_crystal()->set_on_error(Crystal::ON_ERROR_SKIP);
  ASSERT_OK_AND_ASSIGN(const auto store, Open({folder}, options));
  EXPECT_THAT(Ids(*store), ElementsAre("good.vasp"));
  std::vector<std::string> skipped;
  for (const v1::Skipped& skip : store->manifest().skipped()) {
    skipped.push_back(
        absl::StrCat(skip.count(), " ", skip.reason(), " ", std::filesystem::path(skip.first()).filename().string()));
  }
  EXPECT_THAT(skipped,
              ::testing::UnorderedElementsAre(
                  "1 singular lattice id_prop.csv:2", "2 unknown element odd.vasp:6",
                  "1 no structure file id_prop.csv:4", "1 atoms on the same spot id_prop.csv:6",
                  "1 target is missing in the source (na, null, NaN) id_prop.csv:7", "1 wrong target id_prop.csv:8"));
  std::filesystem::remove(folder + "/good.vasp");
  EXPECT_THAT(Open({folder}, options), StatusIs(kBad, HasSubstr("no structure is left")));
}

TEST_F(CrystalJobTest, AtomFeatures_AreATableByAtomicNumber) {
  const std::string path = Write("a.json", List({Record("")}));
  Options options;
  options.mutable_crystal()->set_atom_features(Write("f.json", R"({"55": [1, 2], "Cl": [3, 4.5]})"));
  ASSERT_OK_AND_ASSIGN(const auto store, Open({path}, options));
  EXPECT_EQ(store->atom_feature_width(), 2);
  EXPECT_THAT(store->atom_features().subspan(17 * 2, 2), ElementsAre(3, 4.5));
  EXPECT_THAT(store->atom_features().subspan(0, 2), Each(0));
  const struct {
    const char *table, *message;
  } cases[] = {
      {R"({"55": [1]})", "no row for Cl"},      {R"({"55": [1], "17": [1, 2]})", "has 1 numbers, others 2"},
      {R"({"55": "x"})", "has no array"},       {R"({"55": ["x"]})", "has a value that is no number"},
      {R"({"Qq": [1]})", "'Qq' is no element"}, {R"([1])", "not a table of atom features"},
      {R"({)", "not a table of atom features"},
  };
  for (const auto& broken : cases) {
    options.mutable_crystal()->set_atom_features(Write("f.json", broken.table));
    EXPECT_THAT(Open({path}, options), StatusIs(kBad, AllOf(HasSubstr("f.json"), HasSubstr(broken.message))));
  }
}

TEST_F(CrystalJobTest, SameContentAndOptions_AreTheSameStoreAndChangesAreAnother) {
  const std::string path = Write("a.json", List({Record(R"("jid": "J-1", "gap": 1)")}));
  ASSERT_OK(Open({path}).status());
  const std::string id = result_->manifest.id();
  ASSERT_OK(Open({path}).status());
  EXPECT_TRUE(result_->unchanged);
  Options same;
  same.mutable_crystal()->set_k(12);
  same.set_window(96);  // means nothing to crystals
  ASSERT_OK(Open({path}, same).status());
  EXPECT_EQ(result_->manifest.id(), id);
  Options other;
  other.mutable_crystal()->set_k(13);
  ASSERT_OK(Open({path}, other).status());
  EXPECT_NE(result_->manifest.id(), id);
  Options with_text;
  v1::Sidecar* sidecar = with_text.mutable_crystal()->add_sidecar();
  sidecar->set_name("text");
  sidecar->set_path(Write("t.csv", "J-1,old\n"));
  ASSERT_OK(Open({path}, with_text).status());
  const std::string old = result_->manifest.id();
  Write("t.csv", "J-1,new\n");
  ASSERT_OK_AND_ASSIGN(const auto store, Open({path}, with_text));
  EXPECT_NE(result_->manifest.id(), old);
  EXPECT_EQ(store->Sample(0)->text, "new");
}

TEST_F(CrystalJobTest, Interrupted_GoesOnWithTheUnitsThatAreReady) {
  std::vector<std::string> records;
  for (size_t i = 0; i < 2 * kUnitRecords + 1; ++i) records.push_back(Record(absl::StrCat("\"id\": ", i)));
  const std::string path = Write("a.json", List(records));
  IngestJob* running = nullptr;
  ThreadUnitRunner runner(1);
  IngestJob first(harness_.Params({path}), &runner, [&](const v1::IngestEvent::Progress& progress) {
    if (progress.units_done() > 0) running->Cancel();
  });
  running = &first;
  EXPECT_THAT(first.Run(), StatusIs(absl::StatusCode::kCancelled));
  uint64_t resumed = 0;
  IngestJob second(harness_.Params({path}), &runner,
                   [&](const v1::IngestEvent::Progress& progress) { resumed = progress.units_resumed(); });
  ASSERT_OK_AND_ASSIGN(const IngestResult result, second.Run());
  EXPECT_GT(resumed, 0);
  EXPECT_EQ(result.manifest.samples(), records.size());
}

TEST_F(CrystalJobTest, SourcesOutsideTheRoots_AreNotRead) {
  Write("set/id_prop.csv", "../secret,1\n");
  Write("secret", kCsCl);
  IngestParams params = harness_.Params({harness_.data_dir() + "/set"});
  params.roots = {harness_.data_dir() + "/set"};
  ThreadUnitRunner runner(1);
  EXPECT_THAT(IngestJob(params, &runner, nullptr).Run(), StatusIs(absl::StatusCode::kPermissionDenied));
  const std::string path = Write("set/a.vasp", kCsCl);
  params.sources = {path};
  v1::Sidecar* sidecar = params.options.mutable_crystal()->add_sidecar();
  sidecar->set_name("text");
  sidecar->set_path(Write("t.csv", "a,text\n"));
  EXPECT_THAT(IngestJob(params, &runner, nullptr).Run(),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("t.csv")));
}

TEST_F(CrystalJobTest, WrongSourcesAndOptions_AreNamed) {
  const std::string crystal = Write("a.vasp", kCsCl);
  const std::string series = Write("s.tsv", "1\t0\t1\t2\n2\t1\t0\t1\n");
  EXPECT_THAT(Open({crystal, series}), StatusIs(kBad, HasSubstr("time series and crystals in one data set")));
  Options options;
  options.mutable_crystal()->set_k(5);
  EXPECT_THAT(Open({series}, options), StatusIs(kBad, HasSubstr("the sources are time series")));
  EXPECT_THAT(Open({series}, Crystals({"gap"})), StatusIs(kBad, HasSubstr("target (--target): 'gap'")));
  Options id_prop;
  id_prop.set_format(v1::ID_PROP);
  EXPECT_THAT(Open({harness_.data_dir()}, id_prop), StatusIs(kBad, HasSubstr("no id_prop.csv")));
  const auto wrong = [&](auto change) {
    Options changed;
    change(changed.mutable_crystal());
    return Open({crystal}, changed).status();
  };
  EXPECT_THAT(wrong([](Crystal* c) { c->set_k(5000); }), StatusIs(kBad, HasSubstr("crystal.k")));
  EXPECT_THAT(wrong([](Crystal* c) { c->set_cutoff(-1); }), StatusIs(kBad, HasSubstr("crystal.cutoff (--cutoff)")));
  EXPECT_THAT(wrong([](Crystal* c) { c->set_max_neighbors(5); }), StatusIs(kBad, HasSubstr("--max-neighbors")));
  EXPECT_THAT(wrong([](Crystal* c) { c->set_triplet_cutoff(NAN); }), StatusIs(kBad, HasSubstr("--triplet-cutoff")));
  EXPECT_THAT(wrong([](Crystal* c) { c->add_target(""); }), StatusIs(kBad, HasSubstr("--target")));
  EXPECT_THAT(wrong([](Crystal* c) {
                c->set_graph(Crystal::RADIUS);
                c->set_directed(true);
              }),
              StatusIs(kBad, HasSubstr("--directed")));
}

TEST_F(CrystalJobTest, PrimitiveCell_HasFewerAtoms) {
  Options options;
  options.mutable_crystal()->set_primitive(true);
  ASSERT_OK_AND_ASSIGN(const auto store, Open({Write("a.vasp", kSalt)}, options));
  EXPECT_EQ(store->Sample(0)->atoms(), 2);
  EXPECT_EQ(store->Sample(0)->edges(), 2 * 18);
}

TEST_F(CrystalJobTest, TextbookCrystals_AreWhatTextbooksSay) {
  const std::string folder = absl::StrCat(STOKER_SAMPLES_DIR, "/textbook_crystals");
  Options options = Crystals({"density", "band_gap"});
  v1::Sidecar* sidecar = options.mutable_crystal()->add_sidecar();
  sidecar->set_name("description");
  sidecar->set_path(folder + "/descriptions.csv");
  ASSERT_OK_AND_ASSIGN(const auto store, Open({folder + "/structures.json"}, options));
  EXPECT_EQ(store->samples(), 48);
  EXPECT_EQ(store->manifest().skipped_size(), 0);
  EXPECT_EQ(store->manifest().crystals().close_atoms(), 0);
  // Nearest neighbours by their number, and how many more the rule of the shell takes to reach twelve.
  const std::map<std::string, std::pair<size_t, size_t>> wanted = {
      {"diamond-C", {4, 16}}, {"Cu", {12, 12}}, {"Fe", {8, 14}}, {"Po", {6, 18}}, {"NaCl", {6, 18}}, {"CsCl", {8, 14}}};
  size_t checked = 0;
  for (uint64_t i = 0; i < store->samples(); ++i) {
    const store::CrystalView view = *store->Sample(i);
    EXPECT_FALSE(view.text.empty());
    const auto found = wanted.find(std::string(view.id));
    if (found == wanted.end()) continue;
    ++checked;
    const auto& [nearest, all] = found->second;
    const auto degree = static_cast<size_t>(view.triplet_degree[0]);
    EXPECT_EQ(degree, all) << view.id;
    size_t first_shell = 0;
    for (size_t e = 0; e < degree; ++e) first_shell += view.edge_distance[e] < view.edge_distance[0] + 1e-3f ? 1 : 0;
    EXPECT_EQ(first_shell, nearest) << view.id;
  }
  EXPECT_EQ(checked, wanted.size());
}

TEST(Distribute, IsAsNumpyHasIt) {
  const v1::Distribution d = Distribute({4, 1, 3, 2, 10});
  EXPECT_DOUBLE_EQ(d.mean(), 4);
  EXPECT_NEAR(d.std(), std::sqrt(10), 1e-12);
  EXPECT_EQ(d.min(), 1);
  EXPECT_EQ(d.p25(), 2);
  EXPECT_EQ(d.median(), 3);
  EXPECT_EQ(d.p75(), 4);
  EXPECT_NEAR(d.p95(), 8.8, 1e-12);
  EXPECT_NEAR(d.p99(), 9.76, 1e-12);
  EXPECT_EQ(d.max(), 10);
  EXPECT_EQ(d.histogram_size(), 20);
  EXPECT_EQ(d.histogram(0), 1);
  EXPECT_EQ(d.histogram(19), 1);
  EXPECT_EQ(Distribute({7}).histogram(0), 1);
}

}  // namespace
}  // namespace stoker::ingest
