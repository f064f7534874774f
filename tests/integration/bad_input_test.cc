// SPDX-License-Identifier: Apache-2.0
// What a person gets for bad input, on the command line: one line that names the object and the remedy, an exit code
// that says whose fault it is, and everything else as it was before.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "shared/base/posix.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using testing::Digests;
using ::testing::HasSubstr;
using testing::IntegrationTest;
using testing::MakeSamples;
using testing::Program;
using testing::ProgramResult;
using testing::Read;
using testing::RunningProgram;
using testing::RunProgram;
using testing::SegmentsOf;

struct BadInput {
  const char* name;
  const char* file;   // below the data folder; empty: none is written
  std::string bytes;  // of the file
  // Of stokerctl; $DATA is the data folder, $OUTSIDE a folder that is no root.
  std::vector<std::string> arguments;
  int exit_code;
  std::vector<std::string> says;  // in the one line
};

void PrintTo(const BadInput& input, std::ostream* out) { *out << input.name; }

constexpr char kTsHeader[] =
    "@problemName bad\n@univariate true\n@classLabel true a b\n@data\n";  // data from line 5 on
constexpr char kTsHeader2[] = "@problemName bad\n@univariate false\n@classLabel true a b\n@data\n";

constexpr char kRecord[] =
    R"([{"jid": "J-1", "atoms": {"lattice_mat": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "coords": [[0, 0, 0]],
         "elements": ["Po"], "cartesian": false}}])";

std::vector<std::string> Ingest(const std::string& file, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = {"ingest", "bad", "--source", "$DATA/" + file};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::vector<std::string> ReadGood(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"read", "good"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string Npy(absl::string_view type, absl::string_view shape, size_t bytes) {
  return testing::ToNpy(type, shape, std::string(bytes, '\0').data(), bytes);
}

std::string NpyWithNan() {
  std::vector<double> values(40, 1.5);
  values[27] = std::numeric_limits<double>::quiet_NaN();  // sample 1, point 7
  return testing::ToNpy("<f8", "(2, 20)", values.data(), values.size() * sizeof(double));
}

std::vector<BadInput> BadSources() {
  const std::string ts = kTsHeader, ts2 = kTsHeader2;
  return {
      {"MissingFile", "", "", Ingest("none.ts"), 6, {"none.ts", "No such file", "name a file"}},
      {"EmptyFile", "e.ts", "", Ingest("e.ts"), 4, {"e.ts", "empty"}},
      {"EmptyFileWithoutAnExtension", "e", "", Ingest("e"), 4, {"/e:", "empty"}},
      {"OnlyAHeader", "h.ts", ts, Ingest("h.ts"), 4, {"h.ts"}},
      {"NoDataTag", "n.ts", "@problemName bad\n", Ingest("n.ts"), 4, {"n.ts", "@data"}},
      {"Binary", "b.ts", std::string("\x00\x01\x02\xff\xfe", 5), Ingest("b.ts"), 4, {"b.ts:1"}},
      {"UnknownFormat", "x.dat", "what is this\n", Ingest("x.dat"), 4, {"x.dat", "--format"}},
      {"NotANumber", "t.ts", ts + "1,2,3:a\n1,x,3:b\n", Ingest("t.ts"), 4, {"t.ts:6", "'x'"}},
      {"MissingValue", "m.ts", ts + "1,2,3:a\n1,?,3:b\n", Ingest("m.ts"), 4, {"m.ts:6", "--missing"}},
      {"NanAsText", "m.ts", ts + "1,NaN,3:a\n", Ingest("m.ts"), 4, {"m.ts:5", "--missing"}},
      {"Infinity", "m.ts", ts + "1,inf,3:a\n", Ingest("m.ts"), 4, {"m.ts:5"}},
      {"UnequalLengths", "u.ts", ts + "1,2,3:a\n1,2:b\n", Ingest("u.ts"), 4, {"u.ts:6", "--unequal"}},
      {"RaggedChannels", "r.ts", ts2 + "1,2,3:1,2:a\n", Ingest("r.ts"), 4, {"r.ts:5", "channel 1"}},
      {"ChannelsDiffer", "c.ts", ts2 + "1,2:1,2:a\n1,2:b\n", Ingest("c.ts"), 4, {"c.ts:6", "channels"}},
      {"UnknownLabel", "l.ts", ts + "1,2,3:a\n1,2,3:c\n", Ingest("l.ts"), 4, {"l.ts:6", "'c'", "@classLabel"}},
      {"NoLabel", "l.ts", ts + "1,2,3\n", Ingest("l.ts"), 4, {"l.ts:5", "label"}},
      {"WindowTooLong", "w.ts", ts + "1,2,3:a\n", Ingest("w.ts", {"--window", "4"}), 4, {"w.ts", "window"}},
      {"WindowOfOne", "w.ts", ts + "1,2,3:a\n", Ingest("w.ts", {"--window", "1"}), 2, {"window"}},
      {"NoSuchChannel", "k.ts", ts + "1,2,3:a\n", Ingest("k.ts", {"--channels", "7"}), 4, {"k.ts", "7"}},
      {"WrongMagic", "w.npy", "NUMPY? no", Ingest("w.npy"), 4, {"w.npy"}},
      {"TruncatedNpy", "t.npy", Npy("<f8", "(4, 20)", 600), Ingest("t.npy"), 4, {"t.npy", "640"}},
      {"TruncatedNpyHeader", "t.npy", Npy("<f8", "(4, 20)", 640).substr(0, 40), Ingest("t.npy"), 4, {"t.npy"}},
      {"ObjectArray", "o.npy", Npy("|O", "(4,)", 32), Ingest("o.npy"), 4, {"o.npy", "object"}},
      {"TextArray", "o.npy", Npy("<U2", "(4,)", 32), Ingest("o.npy"), 4, {"o.npy", "text"}},
      {"HugeArray", "h.npy", Npy("<f8", "(1152921504606846976,)", 64), Ingest("h.npy"), 4, {"h.npy"}},
      {"OverflowingArray", "h.npy", Npy("<f8", "(4294967296, 4294967296)", 64), Ingest("h.npy"), 4, {"h.npy"}},
      {"NanInAnArray", "n.npy", NpyWithNan(), Ingest("n.npy"), 4, {"n.npy", "--missing"}},
      {"BrokenZip", "z.npz", std::string("PK\x03\x04 and then nothing", 20), Ingest("z.npz"), 4, {"z.npz"}},
      {"RaggedCsv", "r.csv", "date,a,b\n2020-01-01,1,2\n2020-01-02,1\n", Ingest("r.csv"), 4, {"r.csv:3"}},
      {"CsvNotANumber", "r.csv", "date,a\n2020-01-01,1\n2020-01-02,one\n", Ingest("r.csv"), 4, {"r.csv:3", "one"}},
      {"CsvBadTime", "r.csv", "date,a\n2020-01-01,1\nyesterday,2\n", Ingest("r.csv"), 4, {"r.csv:3", "yesterday"}},
      {"CsvUnknownColumn",
       "r.csv",
       "date,a\n2020-01-01,1\n",
       Ingest("r.csv", {"--label", "class"}),
       4,
       {"r.csv", "class"}},
      {"UcrNotANumber", "u.tsv", "1\t1.0\t2.0\n2\t1.0\ttwo\n", Ingest("u.tsv"), 4, {"u.tsv:2"}},
      {"CrystalWithoutSymbols",
       "c.vasp",
       "c\n1\n4 0 0\n0 4 0\n0 0 4\n1\nDirect\n0 0 0\n",
       Ingest("c.vasp"),
       4,
       {"c.vasp:6", "VASP 4"}},
      {"CrystalWithoutVolume",
       "c.vasp",
       "c\n1\n4 0 0\n4 0 0\n0 0 4\nSi\n1\nDirect\n0 0 0\n",
       Ingest("c.vasp"),
       4,
       {"c.vasp:1", "singular"}},
      {"RecordWithoutTarget", "c.json", kRecord, Ingest("c.json", {"--target", "gap"}), 4, {"record 0", "'gap'"}},
      {"RecordsCutOff", "c.json", absl::StrCat(kRecord).substr(0, 60), Ingest("c.json"), 4, {"c.json", "cut off"}},
      {"IdWithoutFile", "id_prop.csv", "nowhere,1\n", Ingest("id_prop.csv"), 4, {"id_prop.csv:1", "'nowhere'"}},
      {"SidecarThatIsNotThere",
       "c.json",
       kRecord,
       Ingest("c.json", {"--sidecar", "text=$DATA/none.csv"}),
       6,
       {"none.csv"}},
      {"SidecarOutsideTheRoots",
       "c.json",
       kRecord,
       Ingest("c.json", {"--sidecar", "text=$OUTSIDE/secret.ts"}),
       6,
       {"secret.ts", "--root"}},
      {"GraphOptionForSeries", "w.ts", ts + "1,2,3:a\n", Ingest("w.ts", {"--k", "5"}), 2, {"crystal"}},
      {"TooManyNeighbours", "c.json", kRecord, Ingest("c.json", {"--k", "5000"}), 2, {"crystal.k"}},
      {"OutsideTheRoots", "", "", {"ingest", "bad", "--source", "$OUTSIDE/secret.ts"}, 6, {"secret.ts", "--root"}},
      {"LinkOutOfTheRoots", "", "", Ingest("link.ts"), 6, {"secret.ts", "--root"}},
      {"DotsOutOfTheRoots", "", "", {"ingest", "bad", "--source", "$DATA/../outside/secret.ts"}, 6, {"--root"}},
      {"NotAFile", "", "", {"ingest", "bad", "--source", "/dev/null"}, 6, {"/dev/null"}},
      {"EmptyFolder", "", "", {"ingest", "bad", "--source", "$DATA/empty"}, 4, {"empty"}},
      {"Fifo", "", "", Ingest("fifo.ts"), 4, {"fifo.ts"}},
      {"SidecarWithTheNameOfATensor",
       "c.json",
       kRecord,
       Ingest("c.json", {"--sidecar", "edge_index=$DATA/rows.npy"}),
       2,
       {"'edge_index' is a tensor", "another name"}},
      {"TargetBeyondFloat32",
       "c.json",
       absl::StrReplaceAll(kRecord, {{"\"jid\"", "\"density\": 1e39, \"jid\""}}),
       Ingest("c.json", {"--target", "density"}),
       4,
       {"c.json", "target", "beyond float32"}},
      {"BadName", "", "", {"ingest", "../bad", "--source", "$DATA/good.ts"}, 2, {"name"}},
      {"UnknownValueOfAnOption", "", "", Ingest("good.ts", {"--missing", "guess"}), 2, {"--missing", "guess"}},
      {"UnknownOption", "", "", Ingest("good.ts", {"--colour", "red"}), 2, {"--colour"}},
  };
}

std::vector<BadInput> BadReads() {
  return {
      {"RbfWithAZeroThatWouldBeADefault", "", "", ReadGood({"--rbf", "40,-1,0"}), 2, {"--rbf", "40,-1,0"}},
      {"PreviewIntoAFifo", "", "", {"preview", "good", "--out", "$DATA/fifo.ts"}, 6, {"fifo.ts", "no regular file"}},
      {"PreviewIntoAFolder", "", "", {"preview", "good", "--out", "$DATA/empty"}, 6, {"empty", "no regular file"}},
      {"ImageSizeOfOne", "", "", ReadGood({"--image-size", "1"}), 2, {"image_size", "1"}},
      {"ImageLargerThanTheSeries", "", "", ReadGood({"--image-size", "21"}), 2, {"image_size", "20"}},
      {"SampleRangeTooWide", "", "", ReadGood({"--sample-range", "-1,1.5"}), 2, {"sample_range"}},
      {"SampleRangeThatIsNone", "", "", ReadGood({"--sample-range", "wide"}), 2, {"--sample-range", "wide"}},
      {"ScaleNoneButValuesOutside", "", "", ReadGood({"--scale", "none"}), 4, {"good.ts:11", "sample 0", "scale"}},
      {"BatchLargerThanTheArena", "", "", {"read", "long", "--batch-size", "40"}, 5, {"arena", "--arena-bytes"}},
      {"UnknownDataSet", "", "", {"read", "nothing"}, 6, {"nothing", "stokerctl datasets"}},
      {"UnknownDataSetToDrop", "", "", {"drop", "nothing"}, 6, {"nothing"}},
      {"UnknownField", "", "", ReadGood({"--fields", "gasf,gaff"}), 2, {"--fields", "gaff"}},
      {"UnknownDType", "", "", ReadGood({"--dtype", "f8"}), 2, {"--dtype", "f8"}},
      {"RankOutsideTheWorld", "", "", ReadGood({"--rank", "2", "--world", "2"}), 2, {"rank"}},
      {"BatchOfNothing", "", "", ReadGood({"--batch-size", "0"}), 2, {"--batch-size"}},
      {"FromBehindTheEpoch", "", "", ReadGood({"--from", "0:99"}), 2, {"99"}},
      {"FromNowhere", "", "", ReadGood({"--from", "start"}), 2, {"--from", "start"}},
      {"RecipeFileWithAMistake",
       "recipe.txt",
       "gaf {\n  image_size: many\n}\n",
       ReadGood({"--recipe", "$DATA/recipe.txt"}),
       2,
       {"recipe.txt:2"}},
      {"NoDaemon", "", "", {"--socket", "$DATA/nobody.sock", "health"}, 3, {"nobody.sock", "stokerd"}},
      {"UnknownService", "", "", {"health", "stoker.v1.Nothing"}, 6, {"stoker.v1.Nothing"}},
      {"UnknownCommand", "", "", {"fly"}, 2, {"fly"}},
      {"NoCommand", "", "", {}, 2, {"--help"}},
  };
}

class BadInputTest : public IntegrationTest, public ::testing::WithParamInterface<BadInput> {
 protected:
  void Start() {
    ASSERT_NO_FATAL_FAILURE(StartDaemon());
    IngestSamples("good", MakeSamples(12, 1, 20));
    IngestSamples("long", MakeSamples(40, 1, 400));
    dir().Write("outside/secret.ts", ToTs(MakeSamples(3, 1, 10)));
    std::filesystem::create_symlink(dir().File("outside/secret.ts"), DataFile("link.ts"));
    std::filesystem::create_directory(DataFile("empty"));
    ASSERT_EQ(::mkfifo(DataFile("fifo.ts").c_str(), 0600), 0);
  }
  ProgramResult RunCtl(const std::vector<std::string>& arguments) {
    std::vector<std::string> command = {Program("stokerctl")};
    if (std::find(arguments.begin(), arguments.end(), "--socket") == arguments.end()) {
      command.insert(command.end(), {"--socket", daemon().address()});
    }
    for (const std::string& argument : arguments) {
      command.push_back(
          absl::StrReplaceAll(argument, {{"$DATA", dir().File("data")}, {"$OUTSIDE", dir().File("outside")}}));
    }
    return RunProgram(command);
  }
  std::vector<std::string> Stores() const {
    std::vector<std::string> stores;
    for (const auto& entry : std::filesystem::directory_iterator(cache_dir() + "/stores")) {
      stores.push_back(entry.path().filename());
    }
    std::sort(stores.begin(), stores.end());
    return stores;
  }
};

TEST_P(BadInputTest, OneLineSaysWhatIsWrong_AndNothingElseChanges) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const BadInput& bad = GetParam();
  if (bad.file[0] != '\0') WriteData(bad.file, bad.bytes);
  const Digests good = ReadAll(Read("good", 4));
  const std::string instance = Status().instance_id();
  const std::vector<std::string> segments = SegmentsOf(instance), stores = Stores();

  const ProgramResult result = RunCtl(bad.arguments);
  EXPECT_EQ(result.exit_code, bad.exit_code) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_TRUE(absl::StartsWith(result.err, "stokerctl")) << result.err;
  for (const std::string& text : bad.says) EXPECT_THAT(result.err, HasSubstr(text));
  EXPECT_EQ(result.out, "");

  EXPECT_EQ(RunCtl({"health"}).exit_code, 0);
  EXPECT_EQ(SegmentsOf(instance), segments);
  EXPECT_EQ(Stores(), stores);
  ASSERT_OK_AND_ASSIGN(const auto datasets, client().Datasets());
  EXPECT_EQ(datasets.size(), 2u);
  EXPECT_EQ(ReadAll(Read("good", 4)), good);
  EXPECT_TRUE(testing::Eventually([&] { return Status().sessions().empty(); }));
}

std::string NameOf(const ::testing::TestParamInfo<BadInput>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Source, BadInputTest, ::testing::ValuesIn(BadSources()), NameOf);
INSTANTIATE_TEST_SUITE_P(Command, BadInputTest, ::testing::ValuesIn(BadReads()), NameOf);

// ---- stokerd ----

class BadStartTest : public IntegrationTest {
 protected:
  // Of a stokerd that must not start.
  std::string RunDaemon(const std::vector<std::string>& more, int exit_code) {
    std::vector<std::string> command = {Program("stokerd"),
                                        "--socket",
                                        dir().File("sock"),
                                        "--cache-dir",
                                        cache_dir(),
                                        "--root",
                                        DataFile(""),
                                        "--arena-bytes",
                                        "16MiB",
                                        "--workers",
                                        "1"};
    command.insert(command.end(), more.begin(), more.end());
    const ProgramResult result = RunProgram(command);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_FALSE(std::filesystem::exists(dir().File("sock")));
    EXPECT_EQ(result.out, "");
    std::string said;  // what is no log line
    for (const absl::string_view line : absl::StrSplit(result.err, '\n', absl::SkipEmpty())) {
      if (!absl::StartsWith(line, "stokerd: ")) continue;
      EXPECT_EQ(said, "") << result.err;
      said = std::string(line);
    }
    return said;
  }
};

TEST_F(BadStartTest, MalformedConfig_NamesFileAndLine) {
  const std::string config = dir().Write("bad.textproto", "# mine\nsocket: \"/tmp/x\"\nwrokers: \"2\"\n");
  EXPECT_THAT(RunDaemon({"--config", config}, 2), HasSubstr("bad.textproto:3"));
  const std::string unfinished = dir().Write("open.textproto", "socket: \"/tmp/x\n");
  EXPECT_THAT(RunDaemon({"--config", unfinished}, 2), HasSubstr("open.textproto:1"));
  EXPECT_THAT(RunDaemon({"--config", dir().File("none.textproto")}, 6), HasSubstr("none.textproto"));
}

TEST_F(BadStartTest, BadValue_NamesTheField) {
  EXPECT_THAT(RunDaemon({"--arena-bytes", "much"}, 2), HasSubstr("arena_bytes"));
  EXPECT_THAT(RunDaemon({"--segment-bytes", "1KiB"}, 2), HasSubstr("segment_bytes"));
  EXPECT_THAT(RunDaemon({"--lease-limit", "65537"}, 2), HasSubstr("lease_limit"));
  EXPECT_THAT(RunDaemon({"--log-level", "loud"}, 2), HasSubstr("log_level"));
  EXPECT_THAT(RunDaemon({"--shm-dir", "relative"}, 2), HasSubstr("shm_dir"));
  EXPECT_THAT(RunDaemon({"--worker-program", "/nothing/here"}, 6), HasSubstr("worker_program"));
  EXPECT_THAT(RunDaemon({"--socket-group", "no-such-group"}, 2), HasSubstr("no-such-group"));
  EXPECT_THAT(RunDaemon({"--listen", "nowhere"}, 2), HasSubstr("listen"));
  EXPECT_THAT(RunDaemon({"--root", dir().File("none")}, 6), HasSubstr("root"));
}

TEST_F(BadStartTest, UnknownOption_IsUsage) {
  const ProgramResult result = RunProgram({Program("stokerd"), "--colour", "red"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--colour"));
}

TEST_F(BadStartTest, DefaultSocketInADirectoryOfAnotherUser_IsRefused_ByClientsToo) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  constexpr uid_t kNobody = 65534;
  const std::string directory = absl::StrCat("/tmp/stoker-", kNobody);
  if (std::filesystem::exists(directory)) GTEST_SKIP() << directory << " is there";
  ASSERT_EQ(::mkdir(directory.c_str(), 0777), 0);
  const absl::Cleanup remove = [&directory] { ::rmdir(directory.c_str()); };
  const RunningProgram::Options options = {.uid = kNobody, .environment = {"XDG_RUNTIME_DIR=", "STOKER_ADDRESS="}};
  const std::vector<std::vector<std::string>> commands = {{Program("stokerd"), "--arena-bytes", "16MiB"},
                                                          {Program("stokerctl"), "health"}};
  for (const std::vector<std::string>& command : commands) {
    const ProgramResult result = RunningProgram(command, options).Wait();
    EXPECT_EQ(result.exit_code, 6) << result.err;
    EXPECT_THAT(result.err, HasSubstr(directory + ": is not yours alone"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory));
}

TEST_F(BadStartTest, FileWhereTheSocketShallBe_IsNamedAndLeftAlone) {
  const std::string file = dir().Write("precious", "mine");
  EXPECT_THAT(RunDaemon({"--socket", file}, 2), HasSubstr(file + ": is there and no socket"));
  EXPECT_EQ(stoker::ReadFile(file, 64).value_or("gone"), "mine");
}

TEST_F(BadStartTest, SocketInUse_NamesWhoHasItAndHurtsHimNot) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  IngestSamples("good", MakeSamples(12, 1, 20));
  const ProgramResult result = RunProgram({Program("stokerd"), "--socket", daemon().address(), "--cache-dir",
                                           cache_dir(), "--arena-bytes", "16MiB", "--workers", "1"});
  EXPECT_EQ(result.exit_code, 6) << result.err;
  EXPECT_THAT(result.err, HasSubstr(daemon().address()));
  EXPECT_THAT(result.err, HasSubstr(absl::StrCat(daemon().pid())));
  EXPECT_THAT(result.err, HasSubstr("--socket"));
  EXPECT_EQ(ReadAll(Read("good", 4)).size(), 3u);
}

TEST_F(BadStartTest, CacheThatCannotBeWritten_IsNamed) {
  dir().Write("file", "not a folder");
  const std::string said = RunDaemon({"--cache-dir", dir().File("file")}, 6);
  EXPECT_THAT(said, HasSubstr(dir().File("file")));
}

TEST_F(BadStartTest, ArenaLargerThanTheMachine_SaysWhatThereIs) {
  const std::string said = RunDaemon({"--arena-bytes", "1000TiB"}, 5);
  EXPECT_THAT(said, HasSubstr("1000.0 TiB"));
  EXPECT_THAT(said, HasSubstr("--arena-bytes"));
}

TEST_F(BadStartTest, CheckConfig_SaysWhatItWouldDoAndDoesNothing) {
  const ProgramResult result = RunProgram({Program("stokerd"), "--check-config", "--socket", dir().File("sock"),
                                           "--cache-dir", cache_dir(), "--arena-bytes", "16MiB", "--workers", "3"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr(absl::StrCat("socket: ", dir().File("sock"))));
  EXPECT_THAT(result.out, HasSubstr("workers: 3"));
  EXPECT_THAT(result.out, HasSubstr("arena: 16.0 MiB"));
  EXPECT_FALSE(std::filesystem::exists(dir().File("sock")));
  EXPECT_FALSE(std::filesystem::exists(cache_dir()));
}

}  // namespace
}  // namespace stoker
