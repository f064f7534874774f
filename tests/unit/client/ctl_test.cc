// SPDX-License-Identifier: Apache-2.0
// stokerctl as a person types it, against a daemon inside the test.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "client/ctl/bench_process.h"
#include "client/ctl/command.h"
#include "shared/store/safetensors.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/client/fake_daemon.h"

namespace stoker::ctl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::FakeDaemon;
using testing::FakeDaemonOptions;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CtlTest : public ::testing::Test {
 protected:
  CtlTest() : daemon_(Options()) {}

  FakeDaemonOptions Options() const {
    FakeDaemonOptions options;
    options.socket = dir_.File("stoker.sock");
    return options;
  }

  // Runs stokerctl and keeps what it says.
  int Ctl(std::vector<std::string> words) {
    words.insert(words.begin(), {"--socket", dir_.File("stoker.sock")});
    return CtlAnywhere(words);
  }
  int CtlAnywhere(const std::vector<std::string>& words) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = ctl::Run(words, out, err, false, false);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  testing::TempDir dir_;
  FakeDaemon daemon_;
  std::string out_;
  std::string err_;
};

TEST_F(CtlTest, Help_OfEveryCommand_HasAnExample) {
  EXPECT_EQ(CtlAnywhere({"--help"}), 0);
  for (const char* command : {"health", "status", "datasets", "ingest", "drop", "read", "preview", "bench"}) {
    EXPECT_THAT(out_, HasSubstr(command)) << command;
  }
  EXPECT_THAT(out_, Not(HasSubstr("bench-client")));
  for (const char* command : {"health", "status", "datasets", "ingest", "drop", "read", "preview", "bench"}) {
    EXPECT_EQ(CtlAnywhere({command, "--help"}), 0);
    EXPECT_THAT(out_, HasSubstr(std::string("Example:\n  stokerctl ") + command)) << command;
    EXPECT_EQ(err_, "");
  }
}

TEST_F(CtlTest, UsageErrors_AreOneLineAndExit2) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"knit"},
                                             {"drop"},
                                             {"read", "numbers", "--colour", "red"},
                                             {"read", "numbers", "--batch-size", "0"},
                                             {"read", "numbers", "--budget", "graphs=many"},
                                             {"read", "numbers", "--transport", "pigeon"},
                                             {"read", "numbers", "--from", "now"},
                                             {"read", "numbers", "--dtype", "f64"},
                                             {"read", "numbers", "--seed", "-1"},
                                             {"ingest", "x", "--source", "a", "--format", "pickle"},
                                             {"ingest", "x", "--source", "a", "--graph", "voronoi"},
                                             {"ingest", "x", "--source", "a", "--k", "0"},
                                             {"ingest", "x", "--source", "a", "--sidecar", "text.csv"},
                                             {"ingest", "x", "--source", "a", "--on-error", "ignore"},
                                             {"ingest", "x", "--source", "a", "--label", "l", "--label-from-file-name"},
                                             {"ingest", "x"},
                                             {"preview", "numbers"}}) {
    EXPECT_EQ(Ctl(words), 2) << err_;
    EXPECT_THAT(err_, StartsWith("stokerctl"));
    EXPECT_EQ(std::count(err_.begin(), err_.end(), '\n'), 1) << err_;
    EXPECT_LT(err_.size(), 300u) << err_;
    EXPECT_EQ(out_, "");
  }
  Ctl({"read", "numbers", "--seed", "-1"});
  EXPECT_EQ(err_, "stokerctl read: --seed: -1 is not a number of at least 0; see stokerctl read --help\n");
  Ctl({"ingest", "x", "--source", "a", "--cutoff", "0"});
  EXPECT_EQ(err_, "stokerctl ingest: --cutoff: 0 is not a number above 0; see stokerctl ingest --help\n");
}

TEST_F(CtlTest, OutputThatCannotBeWritten_IsAnError) {
  std::ostream full(nullptr);
  std::ostringstream err;
  const std::string socket = dir_.File("stoker.sock");
  EXPECT_EQ(ctl::Run({"--socket", socket, "--json", "status"}, full, err, false, false), 5);
  EXPECT_THAT(err.str(), HasSubstr("the output could not be written"));
}

TEST_F(CtlTest, WithoutADaemon_EveryCommandExits3) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"health"},
                                                                                     {"status"},
                                                                                     {"datasets"},
                                                                                     {"drop", "x"},
                                                                                     {"ingest", "x", "--source", "a"},
                                                                                     {"read", "x"},
                                                                                     {"preview", "x", "--out", "p"}}) {
    std::vector<std::string> all = {"--socket", dir_.File("nobody.sock")};
    all.insert(all.end(), words.begin(), words.end());
    EXPECT_EQ(CtlAnywhere(all), 3) << words[0];
    EXPECT_THAT(err_, AllOf(HasSubstr("nobody.sock"), HasSubstr("start stokerd")));
  }
}

TEST_F(CtlTest, Health) {
  EXPECT_EQ(Ctl({"health"}), 0);
  EXPECT_EQ(out_, "SERVING\n");
  EXPECT_EQ(Ctl({"health", "--json"}), 0);
  EXPECT_EQ(json::parse(out_)["status"], "SERVING");
  EXPECT_EQ(Ctl({"--quiet", "health"}), 0);
  EXPECT_EQ(out_, "");
  EXPECT_EQ(Ctl({"health", "no.such.service"}), 6);
}

TEST_F(CtlTest, Status) {
  EXPECT_EQ(Ctl({"status"}), 0);
  EXPECT_THAT(out_, HasSubstr("SERVING"));
  EXPECT_EQ(Ctl({"status", "--json"}), 0);
  const json status = json::parse(out_);
  EXPECT_EQ(status["state"], "SERVING");
  EXPECT_EQ(status["instance_id"].get<std::string>().size(), 16u);
}

TEST_F(CtlTest, DatasetsAndDrop) {
  EXPECT_EQ(Ctl({"datasets"}), 0);
  EXPECT_THAT(out_, HasSubstr("numbers"));
  EXPECT_EQ(Ctl({"datasets", "--json"}), 0);
  EXPECT_EQ(json::parse(out_)["datasets"][0]["name"], "numbers");
  EXPECT_EQ(Ctl({"drop", "numbers", "--json"}), 0);
  EXPECT_EQ(json::parse(out_)["store_removed"], true);
}

TEST_F(CtlTest, Ingest) {
  EXPECT_EQ(Ctl({"ingest", "walks", "--source", "a.csv", "b.csv", "--window", "96"}), 0);
  EXPECT_THAT(out_, HasSubstr("walks"));
  EXPECT_EQ(Ctl({"ingest", "walks", "--source", "a.csv", "--json"}), 0);
  EXPECT_EQ(json::parse(out_)["dataset"]["samples"], "20");
  EXPECT_EQ(Ctl({"ingest", "bad", "--source", "a.csv"}), 4);
  EXPECT_EQ(err_, "stokerctl: ingest bad: walks.csv:7: channel x: not a number\n");
}

TEST_F(CtlTest, IngestOfCrystals_SendsItsOptionsAndTellsOfGraphs) {
  EXPECT_EQ(Ctl({"ingest",           "dft",       "--source",        "d",        "--graph",     "radius",
                 "--cutoff",         "5",         "--max-neighbors", "20",       "--tolerance", "0",
                 "--triplet-cutoff", "4",         "--target",        "gap",      "density",     "--sidecar",
                 "text=t.csv",       "--sidecar", "rows=/r.npy",     "--id-key", "name",        "--primitive",
                 "--atom-features",  "f.json",    "--on-error",      "skip",     "--json"}),
            0)
      << err_;
  const json options = json::parse(out_)["dataset"]["options"];
  const json crystal = options["crystal"];
  EXPECT_EQ(crystal["graph"], "RADIUS");
  EXPECT_EQ(crystal["cutoff"], 5.0);
  EXPECT_EQ(crystal["max_neighbors"], 20);
  EXPECT_EQ(crystal["tolerance"], 0.0);
  EXPECT_EQ(crystal["triplet_cutoff"], 4.0);
  EXPECT_EQ(crystal["target"], json({"gap", "density"}));
  EXPECT_EQ(crystal["sidecar"][0]["name"], "text");
  EXPECT_EQ(crystal["sidecar"][0]["path"], (std::filesystem::current_path() / "t.csv").string());
  EXPECT_EQ(crystal["sidecar"][1]["path"], "/r.npy");
  EXPECT_EQ(crystal["id_key"], "name");
  EXPECT_EQ(crystal["primitive"], true);
  EXPECT_EQ(crystal["atom_features"], (std::filesystem::current_path() / "f.json").string());
  EXPECT_EQ(crystal["on_error"], "ON_ERROR_SKIP");
  EXPECT_EQ(Ctl({"ingest", "dft", "--source", "d", "--k", "8", "--directed", "--target", "gap"}), 0) << err_;
  EXPECT_THAT(out_, AllOf(HasSubstr("1 234, a structure: mean 0.0, median 61"), HasSubstr("targets   1: gap"),
                          HasSubstr("singular lattice")));
}

TEST_F(CtlTest, IngestTarget_IsAKindOrAKey) {
  EXPECT_EQ(Ctl({"ingest", "walks", "--source", "a.ts", "--target", "class", "--json"}), 0) << err_;
  EXPECT_EQ(json::parse(out_)["dataset"]["options"]["target"], "TARGET_CLASS");
  EXPECT_EQ(Ctl({"ingest", "dft", "--source", "a", "--target", "gap", "--json"}), 0) << err_;
  EXPECT_EQ(json::parse(out_)["dataset"]["options"]["target"], "TARGET_UNSPECIFIED");
}

TEST_F(CtlTest, Read_EndsWithItsSummary) {
  EXPECT_EQ(Ctl({"read", "numbers", "--epochs", "2", "--json"}), 0) << err_;
  json result = json::parse(out_);
  EXPECT_EQ(result["batches"], 10);
  EXPECT_EQ(result["samples"], 40);
  EXPECT_EQ(result["bytes"], 10 * (12 * 4 + 4 * 2 + 4 * 8 + 16));
  EXPECT_EQ(result["transport"], "shm");
  EXPECT_EQ(result["next"], "2:0");
  EXPECT_GT(result["seconds"], 0);
  EXPECT_EQ(Ctl({"read", "numbers", "--from", "3:1", "--batches", "2", "--transport", "inline", "--json"}), 0);
  result = json::parse(out_);
  EXPECT_EQ(result["next"], "3:3");
  EXPECT_EQ(result["transport"], "inline");
  EXPECT_EQ(Ctl({"read", "numbers"}), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("batches/s"), HasSubstr("1:0")));
}

TEST_F(CtlTest, Read_WritesBatchesAsSafetensors) {
  EXPECT_EQ(Ctl({"read", "numbers", "--out", dir_.File("out/deep"), "--from", "1:3"}), 0) << err_;
  ASSERT_OK_AND_ASSIGN(const auto file, store::SafetensorsFile::Open(dir_.File("out/deep/epoch-1-step-4.safetensors")));
  EXPECT_EQ(file.metadata().at("dataset"), "numbers");
  EXPECT_EQ(file.metadata().at("epoch"), "1");
  EXPECT_EQ(file.metadata().at("step"), "4");
  EXPECT_EQ(file.metadata().at("recipe"), "00112233aabbccdd");
  EXPECT_TRUE(file.metadata().contains("plan"));
  ASSERT_OK_AND_ASSIGN(const absl::Span<const float> x, file.Get<float>("x"));
  EXPECT_EQ(x[11], testing::ExpectedValue(1, 4, 11));
  EXPECT_EQ(file.Find("h")->dtype, v1::DTYPE_F16);
}

TEST_F(CtlTest, Read_OfBadData_Exits4AndSaysWhere) {
  daemon_.FailStep(2, grpc::StatusCode::INVALID_ARGUMENT, "walks.csv:17: value 2 is not in [-1, 1]");
  EXPECT_EQ(Ctl({"read", "numbers"}), 4);
  EXPECT_EQ(err_, "stokerctl: read numbers at 0:2: walks.csv:17: value 2 is not in [-1, 1]\n");
  EXPECT_EQ(Ctl({"read", "numbers", "--batches", "2", "--quiet"}), 0) << err_;
}

TEST_F(CtlTest, Read_OfAnUnknownDataSet_Exits6) {
  EXPECT_EQ(Ctl({"read", "letters"}), 6);
  EXPECT_THAT(err_, HasSubstr("data set \"letters\": there is none"));
}

TEST_F(CtlTest, Preview_WritesAPng) {
  EXPECT_EQ(Ctl({"preview", "numbers", "--out", dir_.File("p.png"), "--samples", "3"}), 0) << err_;
  EXPECT_EQ(out_, dir_.File("p.png") + ": 144 x 416\n");
  EXPECT_GT(std::filesystem::file_size(dir_.File("p.png")), 100u);
  EXPECT_EQ(Ctl({"preview", "numbers", "--out", dir_.File("no/such/p.png")}), 6);
}

TEST_F(CtlTest, ExampleProgram_ReadsTwoEpochs) {
  ASSERT_OK_AND_ASSIGN(LineProcess example, LineProcess::Start({STOKER_EXAMPLE, "numbers", dir_.File("stoker.sock")}));
  EXPECT_EQ(example.ReadLine(absl::Seconds(60)).value(), "epoch 0: 5 batches, sum 800");
  EXPECT_THAT(example.ReadLine(absl::Seconds(60)).value(), HasSubstr("\"epoch\":1"));
  EXPECT_EQ(example.ReadLine(absl::Seconds(60)).value(), "epoch 1: 5 batches, sum 800");
  EXPECT_TRUE(example.Wait().ok());
}

TEST_F(CtlTest, Quiet_SaysNothingButErrors) {
  EXPECT_EQ(Ctl({"read", "numbers", "--quiet"}), 0);
  EXPECT_EQ(out_ + err_, "");
  EXPECT_EQ(Ctl({"read", "letters", "--quiet"}), 6);
  EXPECT_NE(err_, "");
}

}  // namespace
}  // namespace stoker::ctl
