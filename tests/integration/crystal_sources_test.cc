// SPDX-License-Identifier: Apache-2.0
// Every kind of crystal source on the command line, by budget: read whole, read from the middle, cut for ranks.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::Digests;
using ::testing::HasSubstr;
using testing::IntegrationTest;
using testing::Program;
using testing::ProgramResult;
using testing::ReadEpoch;
using testing::RunProgram;
using testing::SharedFile;
using testing::StatusIs;

// A textbook in four notations: cubes with one to eight atoms, so that costs differ.
struct Cell {
  const char* id;
  std::vector<std::string> elements;
  std::vector<std::array<double, 3>> fractions;
  double a;  // Å
};
const std::vector<Cell>& Cells() {
  static const auto* const cells = new std::vector<Cell>{
      {"Po", {"Po"}, {{0, 0, 0}}, 3.359},
      {"Fe", {"Fe", "Fe"}, {{0, 0, 0}, {0.5, 0.5, 0.5}}, 2.866},
      {"CsCl", {"Cs", "Cl"}, {{0, 0, 0}, {0.5, 0.5, 0.5}}, 4.123},
      {"Cu", {"Cu", "Cu", "Cu", "Cu"}, {{0, 0, 0}, {0, 0.5, 0.5}, {0.5, 0, 0.5}, {0.5, 0.5, 0}}, 3.615},
      {"NaCl",
       {"Na", "Na", "Na", "Na", "Cl", "Cl", "Cl", "Cl"},
       {{0, 0, 0}, {0, 0.5, 0.5}, {0.5, 0, 0.5}, {0.5, 0.5, 0}, {0.5, 0.5, 0.5}, {0.5, 0, 0}, {0, 0.5, 0}, {0, 0, 0.5}},
       5.640}};
  return *cells;
}

std::string ToJarvis() {
  json records = json::array();
  for (const Cell& cell : Cells()) {
    records.push_back({{"jid", cell.id},
                       {"a", cell.a},
                       {"atoms",
                        {{"lattice_mat", {{cell.a, 0, 0}, {0, cell.a, 0}, {0, 0, cell.a}}},
                         {"coords", cell.fractions},
                         {"elements", cell.elements},
                         {"cartesian", false}}}});
  }
  return records.dump();
}

std::string ToExtxyz() {
  std::string text;
  for (const Cell& cell : Cells()) {
    absl::StrAppend(&text, cell.elements.size(), "\nLattice=\"", cell.a, " 0 0 0 ", cell.a, " 0 0 0 ", cell.a,
                    "\" Properties=species:S:1:pos:R:3 pbc=\"T T T\"\n");
    for (size_t i = 0; i < cell.elements.size(); ++i) {
      const auto& f = cell.fractions[i];
      absl::StrAppend(&text, cell.elements[i], " ", f[0] * cell.a, " ", f[1] * cell.a, " ", f[2] * cell.a, "\n");
    }
  }
  return text;
}

std::string ToPoscar(const Cell& cell) {
  std::string text = absl::StrCat(cell.id, "\n", cell.a, "\n1 0 0\n0 1 0\n0 0 1\n");
  for (const std::string& element : cell.elements) absl::StrAppend(&text, element, " ");
  text += "\n";
  for (size_t i = 0; i < cell.elements.size(); ++i) text += "1 ";
  text += "\nDirect\n";
  for (const auto& f : cell.fractions) absl::StrAppend(&text, f[0], " ", f[1], " ", f[2], "\n");
  return text;
}

std::string ToCif(const Cell& cell) {
  std::string text = absl::StrCat("data_", cell.id, "\n_cell_length_a ", cell.a, "\n_cell_length_b ", cell.a,
                                  "\n_cell_length_c ", cell.a,
                                  "\n_cell_angle_alpha 90\n_cell_angle_beta 90\n_cell_angle_gamma 90\n"
                                  "_space_group_name_H-M_alt 'P 1'\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
                                  "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n");
  for (size_t i = 0; i < cell.elements.size(); ++i) {
    const auto& f = cell.fractions[i];
    absl::StrAppend(&text, cell.elements[i], i, " ", cell.elements[i], " ", f[0], " ", f[1], " ", f[2], "\n");
  }
  return text;
}

std::string Contents(const std::filesystem::path& path) {
  std::ostringstream bytes;
  bytes << std::ifstream(path, std::ios::binary).rdbuf();
  return bytes.str();
}

class CrystalSourcesTest : public IntegrationTest {
 protected:
  ProgramResult Ctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {Program("stokerctl"), "--socket", daemon().address()});
    return RunProgram(std::move(arguments));
  }
  json CtlJson(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "--json");
    const ProgramResult result = Ctl(std::move(arguments));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out, nullptr, /*allow_exceptions=*/false);
  }
  // Writes the textbook in one notation; its path.
  std::string Write(const std::string& notation) {
    if (notation == "jarvis") return WriteData("book.json", ToJarvis());
    if (notation == "extxyz") return WriteData("book.extxyz", ToExtxyz());
    std::string table;
    for (const Cell& cell : Cells()) {
      const std::string file = absl::StrCat(cell.id, notation == "cif" ? ".cif" : ".vasp");
      WriteData(absl::StrCat(notation, "/", file), notation == "cif" ? ToCif(cell) : ToPoscar(cell));
      absl::StrAppend(&table, notation == "cif" ? cell.id : file, ",", cell.a, "\n");  // ids with and without extension
    }
    WriteData(absl::StrCat(notation, "/id_prop.csv"), table);
    return DataFile(notation);
  }
  static LoaderOptions ByNodes(const std::string& dataset, uint64_t nodes) {
    LoaderOptions options;
    options.dataset = dataset;
    options.recipe.mutable_graph();
    options.plan.mutable_budget()->set_nodes(nodes);
    options.plan.set_shuffle(true);
    options.plan.set_seed(11);
    options.epochs = 1;
    return options;
  }
};

// ---- every notation ----

class CrystalNotation : public CrystalSourcesTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(CrystalNotation, SameTextbook_SameGraphs) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const json done = CtlJson({"ingest", "book", "--source", Write(GetParam())});
  EXPECT_EQ(done["dataset"]["samples"], "5") << done;
  const json& crystals = done["dataset"]["manifest"]["crystals"];
  EXPECT_EQ(crystals["atoms"], "17") << done;
  EXPECT_EQ(crystals["edges"], std::to_string((1 + 8) * 18 + (2 + 2) * 14 + 4 * 12)) << done;
  const json read = CtlJson({"read", "book", "--budget", "nodes=9", "--shuffle", "--epochs", "3"});
  EXPECT_EQ(read["samples"], 15);
  EXPECT_EQ(read["oversize_samples"], 0);
  EXPECT_EQ(read["next"], "3:0");
}
INSTANTIATE_TEST_SUITE_P(All, CrystalNotation, ::testing::Values("jarvis", "extxyz", "poscar", "cif"),
                         [](const auto& info) { return std::string(info.param); });

// ---- real files ----

struct RealSource {
  const char* name;
  const char* path;
  const char* nodes;  // budget
};
void PrintTo(const RealSource& source, std::ostream* out) { *out << source.path; }

class RealCrystals : public CrystalSourcesTest, public ::testing::WithParamInterface<RealSource> {};

TEST_P(RealCrystals, ReadByBudget_AndFromTheMiddle_GiveTheSameFiles) {
  const std::string path = SharedFile(absl::StrCat("data/crystals/", GetParam().path));
  if (path.empty()) GTEST_SKIP() << GetParam().path << " is not on this machine";
  ASSERT_NO_FATAL_FAILURE(StartDaemon({.arena_bytes = "64MiB"}));
  const json done = CtlJson({"ingest", "real", "--source", path});
  const uint64_t samples = std::stoull(done["dataset"]["samples"].get<std::string>());
  const std::vector<std::string> plan = {
      "--budget", absl::StrCat("graphs=64,nodes=", GetParam().nodes), "--oversize", "alone", "--shuffle", "--seed",
      "3"};
  const auto read = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"read", "real"});
    more.insert(more.end(), plan.begin(), plan.end());
    return CtlJson(std::move(more));
  };
  const json whole = read({"--out", dir().File("whole")});
  EXPECT_EQ(whole["samples"], samples);
  EXPECT_EQ(whole["next"], "1:0");
  const uint64_t batches = whole["batches"].get<uint64_t>();
  const json head = read({"--out", dir().File("parts"), "--batches", std::to_string((batches + 1) / 2)});
  const std::string next = head["next"].get<std::string>();
  if (next != "1:0") read({"--out", dir().File("parts"), "--from", next});
  uint64_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir().File("whole"))) {
    const std::filesystem::path other = std::filesystem::path(dir().File("parts")) / entry.path().filename();
    ASSERT_TRUE(std::filesystem::exists(other)) << other;
    EXPECT_EQ(Contents(entry.path()), Contents(other)) << other;
    ++files;
  }
  EXPECT_EQ(files, batches);
}
INSTANTIATE_TEST_SUITE_P(All, RealCrystals,
                         ::testing::Values(RealSource{"AlignnSample", "alignn_sample_data", "100"},
                                           RealSource{"AlignnForceField", "id_prop_json/alignn_ff_id_prop.json", "60"},
                                           RealSource{"CartesianCoordinates",
                                                      "id_prop_json/alignn_ff_additional_id_prop.json", "10"},
                                           RealSource{"Silicon", "id_prop_json/mlearn_Si_id_prop.json", "2000"},
                                           RealSource{"JarvisPoscars", "jarvis_poscar", "300"},
                                           RealSource{"CifFolder", "cif/cgcnn_sample-regression", "20"},
                                           RealSource{"ExtxyzFolder", "extxyz", "40"},
                                           RealSource{"Matbench", "matbench/matminer_dataframe.json.gz", "10"}),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- budgets ----

class CrystalBudgets : public CrystalSourcesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(StartDaemon());
    ASSERT_EQ(Ingest("book", Write("jarvis")).dataset().samples(), Cells().size());
  }
};

TEST_F(CrystalBudgets, SampleOverBudget_IsRefusedByName) {
  const ProgramResult result = Ctl({"read", "book", "--budget", "nodes=7"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("plan.budget.nodes"), HasSubstr("NaCl"), HasSubstr("has 8, more than 7"),
                                HasSubstr("--oversize")));
}

TEST_F(CrystalBudgets, SampleOverBudget_AloneOrLeftOut_IsReported) {
  const json alone = CtlJson({"read", "book", "--budget", "nodes=7", "--oversize", "alone"});
  EXPECT_EQ(alone["samples"], 5);
  EXPECT_EQ(alone["oversize_samples"], 1);
  const json skipped = CtlJson({"read", "book", "--budget", "nodes=7", "--oversize", "skip"});
  EXPECT_EQ(skipped["samples"], 4);
  EXPECT_EQ(skipped["oversize_samples"], 1);
  const ProgramResult text = Ctl({"read", "book", "--budget", "nodes=7", "--oversize", "skip"});
  EXPECT_THAT(text.out, HasSubstr("over budget  1 of 5 samples, left out"));
}

TEST_F(CrystalBudgets, NoBatch_IsOverAnyOfItsBudgets) {
  LoaderOptions options = ByNodes("book", 9);
  options.plan.mutable_budget()->set_graphs(3);
  options.plan.mutable_budget()->set_edges(150);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  size_t graphs = 0;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    if (!batch) break;
    ASSERT_OK_AND_ASSIGN(const auto nodes, batch->Get<int64_t>("num_nodes"));
    ASSERT_OK_AND_ASSIGN(const auto edges, batch->Get<int64_t>("num_edges"));
    const auto sum = [](absl::Span<const int64_t> of) { return std::accumulate(of.begin(), of.end(), int64_t{0}); };
    EXPECT_LE(nodes.data().size(), 3u);
    EXPECT_LE(sum(nodes.data()), 9);
    EXPECT_LE(sum(edges.data()), 150);
    graphs += nodes.data().size();
  }
  EXPECT_EQ(graphs, 5u);
}

TEST_F(CrystalBudgets, Ranks_HaveAsManyStepsAndTogetherAllSamplesOnce) {
  std::vector<int64_t> indices;
  std::vector<uint64_t> steps;
  for (const uint32_t rank : {0u, 1u}) {
    LoaderOptions options = ByNodes("book", 9);
    options.plan.set_world(2);
    options.plan.set_rank(rank);
    ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
    steps.push_back(loader.steps_per_epoch());
    uint64_t batches = 0;
    while (true) {
      ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
      if (!batch) break;
      ++batches;
      ASSERT_OK_AND_ASSIGN(const auto index, batch->Get<int64_t>("index"));
      indices.insert(indices.end(), index.data().begin(), index.data().end());
    }
    EXPECT_EQ(batches, steps.back());
  }
  EXPECT_EQ(steps[0], steps[1]);
  std::sort(indices.begin(), indices.end());
  EXPECT_EQ(indices, (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

TEST_F(CrystalBudgets, DaemonKilledInTheMiddle_NextDaemonGoesOnWithTheSameBytes) {
  const Digests whole = ReadAll(ByNodes("book", 8));
  ASSERT_GE(whole.size(), 3u);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(ByNodes("book", 8)));
  ASSERT_OK(loader.Next(absl::Seconds(60)));
  const std::string state = loader.SaveState();
  EXPECT_LT(state.size(), 1024u);
  loader.Close();
  ASSERT_NO_FATAL_FAILURE(StopDaemon());
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  ASSERT_OK_AND_ASSIGN(Loader next, client().Open(ByNodes("book", 8)));
  ASSERT_OK(next.LoadState(state));
  Digests rest = whole;
  rest.erase({0, 0});
  EXPECT_EQ(ReadEpoch(&next), rest);
}

TEST_F(CrystalBudgets, MovedToAnEpoch_KnowsItsStepsAtOnceAndReadsThem) {
  LoaderOptions options = ByNodes("book", 8);
  options.epochs = 0;
  options.plan.set_shuffle(true);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(options));
  for (const uint64_t epoch : {40, 3, 12, 4}) {
    ASSERT_OK(loader.SetEpoch(epoch));
    options.start.set_epoch(epoch);
    ASSERT_OK_AND_ASSIGN(Loader fresh, client().Open(options));
    EXPECT_EQ(loader.steps_per_epoch(), fresh.steps_per_epoch());
    EXPECT_EQ(ReadEpoch(&loader), ReadEpoch(&fresh)) << "epoch " << epoch;
  }
}

TEST_F(CrystalBudgets, APlaceThatThereIsNot_IsRefusedAndTheLoaderStays) {
  const Digests whole = ReadAll(ByNodes("book", 8));
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(ByNodes("book", 8)));
  ASSERT_OK_AND_ASSIGN(const std::optional<Batch> held, loader.Next(absl::Seconds(60)));
  for (const char* epoch : {"\"epoch\":0", "\"epoch\":9"}) {
    const std::string state =
        absl::StrReplaceAll(loader.SaveState(), {{"\"epoch\":0", epoch}, {"\"step\":1", "\"step\":77"}});
    EXPECT_THAT(loader.LoadState(state),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("position.step: 77 is past the")));
    EXPECT_EQ(loader.position().step(), 1u);
  }
  EXPECT_TRUE(testing::Eventually([&] { return Status().arena().extents().leased() == 1; }));  // the one that is held
  EXPECT_EQ(ReadEpoch(&loader), Digests(std::next(whole.begin()), whole.end()));
  EXPECT_OK(held->Check());
}

TEST_F(CrystalBudgets, Datasets_SideBySide_HaveFiguresAndAPlotOnOneAxis) {
  ASSERT_EQ(Ctl({"ingest", "half", "--source", DataFile("book.json"), "--k", "6"}).exit_code, 0);
  const ProgramResult result = Ctl({"datasets", "book", "half"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* what : {"atoms a sample", "edges a sample", "triplets a sample", "█"}) {
    EXPECT_THAT(result.out, HasSubstr(what));
  }
  EXPECT_EQ(Ctl({"datasets", "book", "nowhere"}).exit_code, 6);
  EXPECT_THAT(Ctl({"datasets"}).out, ::testing::Not(HasSubstr("a sample  mean")));
}

TEST_F(CrystalBudgets, SidecarsByIdAndOrder_GoWithTheirGraph) {
  std::string texts = "jid,text\n";
  for (auto cell = Cells().rbegin(); cell != Cells().rend(); ++cell) {
    absl::StrAppend(&texts, cell->id, ",\"", cell->id, ", a cube\"\n");
  }
  std::vector<float> rows;
  for (size_t i = 0; i < Cells().size(); ++i) rows.insert(rows.end(), {static_cast<float>(i), 0.5f});
  WriteData("rows.npy", testing::ToNpy("<f4", "(5, 2)", rows.data(), rows.size() * sizeof(float)));
  const ProgramResult ingest =
      Ctl({"ingest", "told", "--source", DataFile("book.json"), "--sidecar", "text=" + WriteData("texts.csv", texts),
           "--sidecar", "row=" + DataFile("rows.npy"), "--target", "a"});
  ASSERT_EQ(ingest.exit_code, 0) << ingest.err;
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(ByNodes("told", 9)));
  size_t graphs = 0;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    if (!batch) break;
    ASSERT_OK_AND_ASSIGN(const auto index, batch->Get<int64_t>("index"));
    ASSERT_OK_AND_ASSIGN(const auto target, batch->Get<float>("target"));
    ASSERT_OK_AND_ASSIGN(const auto row, batch->Get<float>("row"));
    ASSERT_OK_AND_ASSIGN(const auto offsets, batch->Get<int64_t>("text_offsets"));
    ASSERT_OK_AND_ASSIGN(const auto bytes, batch->Get<uint8_t>("text_bytes"));
    ASSERT_EQ(offsets.data().size(), index.data().size() + 1);
    for (size_t i = 0; i < index.data().size(); ++i) {
      const Cell& cell = Cells()[static_cast<size_t>(index.data()[i])];
      EXPECT_FLOAT_EQ(target.data()[i], static_cast<float>(cell.a));
      EXPECT_EQ(row.data()[2 * i], static_cast<float>(index.data()[i]));
      const auto text = bytes.data().subspan(static_cast<size_t>(offsets.data()[i]),
                                             static_cast<size_t>(offsets.data()[i + 1] - offsets.data()[i]));
      EXPECT_EQ(std::string(text.begin(), text.end()), absl::StrCat(cell.id, ", a cube"));
      ++graphs;
    }
  }
  EXPECT_EQ(graphs, 5u);
}

}  // namespace
}  // namespace stoker
