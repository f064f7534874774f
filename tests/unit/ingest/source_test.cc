// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;

TEST(CheckRootsTest, PathBelowARoot_IsResolved) {
  TempDir dir;
  const std::string file = dir.Write("in/a.ts", "x");
  EXPECT_THAT(CheckRoots(dir.File("in/../in/a.ts"), {dir.File("nowhere"), dir.File("in")}), IsOkAndHolds(file));
  EXPECT_THAT(CheckRoots(file, {"/"}), IsOkAndHolds(file));
  EXPECT_THAT(CheckRoots(file, {file}), IsOkAndHolds(file));
}

TEST(CheckRootsTest, PathOutside_IsDeniedWithTheRemedy) {
  TempDir dir;
  const std::string file = dir.Write("out/a.ts", "x");
  dir.Write("in/b.ts", "x");
  dir.Write("inside/c.ts", "x");
  const auto denied = StatusIs(absl::StatusCode::kPermissionDenied, AllOf(HasSubstr("a.ts"), HasSubstr("--root")));
  EXPECT_THAT(CheckRoots(file, {dir.File("in")}), denied);
  EXPECT_THAT(CheckRoots(file, {}), denied);
  EXPECT_THAT(CheckRoots(dir.File("in/../out/a.ts"), {dir.File("in")}), denied);
  EXPECT_THAT(CheckRoots(dir.File("inside/c.ts"), {dir.File("in")}), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(CheckRootsTest, LinkOutOfTheRoot_IsDenied) {
  TempDir dir;
  const std::string file = dir.Write("out/a.ts", "x");
  std::filesystem::create_directory(dir.File("in"));
  std::filesystem::create_symlink(file, dir.File("in/link.ts"));
  std::filesystem::create_directory_symlink(dir.File("out"), dir.File("in/folder"));
  EXPECT_THAT(CheckRoots(dir.File("in/link.ts"), {dir.File("in")}),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       AllOf(HasSubstr("link.ts"), HasSubstr(absl::StrCat("which is ", file)))));
  EXPECT_THAT(CheckRoots(dir.File("in/folder/a.ts"), {dir.File("in")}), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(ResolveSources({dir.File("in")}, {}, {dir.File("in")}), StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(CheckRootsTest, PathsThatAreNone_AreRefused) {
  TempDir dir;
  EXPECT_THAT(CheckRoots(dir.File("none"), {"/"}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(CheckRoots(dir.Write("f", "x") + "/a.ts", {"/"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("f/a.ts")));
  EXPECT_THAT(CheckRoots("a.ts", {"/"}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("absolute")));
  EXPECT_THAT(CheckRoots("", {"/"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CheckRoots("/\xFF", {"/"}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-8")));
  EXPECT_THAT(CheckRoots(std::string("/tmp\0/x", 7), {"/"}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ResolveFormatTest, ExtensionDecides) {
  TempDir dir;
  for (const auto& [name, format] : {std::pair{"a.TS", v1::TS},
                                     {"a.tsv", v1::UCR},
                                     {"a.txt", v1::UCR},
                                     {"a.npy", v1::NPY},
                                     {"a.npz", v1::NPY},
                                     {"a.csv", v1::CSV}}) {
    EXPECT_THAT(ResolveFormat(dir.Write(name, "x"), v1::FORMAT_AUTO), IsOkAndHolds(format)) << name;
  }
  EXPECT_THAT(ResolveFormat(dir.Write("a.ts", "x"), v1::CSV), IsOkAndHolds(v1::CSV));
}

TEST(ResolveFormatTest, FirstBytesDecideOtherwise) {
  TempDir dir;
  const auto resolve = [&](absl::string_view bytes) {
    return ResolveFormat(dir.Write("a.dat", bytes), v1::FORMAT_AUTO);
  };
  EXPECT_THAT(resolve("\x93NUMPY\x01"), IsOkAndHolds(v1::NPY));
  EXPECT_THAT(resolve("PK\x03\x04"), IsOkAndHolds(v1::NPY));
  EXPECT_THAT(resolve("\xEF\xBB\xBF# c"), IsOkAndHolds(v1::TS));
  EXPECT_THAT(resolve("\n@problemName x"), IsOkAndHolds(v1::TS));
  EXPECT_THAT(resolve("  2.0e+00 1 2"), IsOkAndHolds(v1::UCR));
  EXPECT_THAT(resolve("hello"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--format")));
  EXPECT_THAT(resolve(""), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
}

TEST(ResolveSourcesTest, Directory_GivesItsFilesByName) {
  TempDir dir;
  dir.Write("d/b.ts", "x");
  dir.Write("d/a.csv", "x");
  dir.Write("d/.hidden.ts", "x");
  dir.Write("d/notes.md", "x");
  dir.Write("d/sub/c.ts", "x");
  ASSERT_OK_AND_ASSIGN(std::vector<Source> sources, ResolveSources({dir.File("d")}, {}, {"/"}));
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].path, dir.File("d/a.csv"));
  EXPECT_EQ(sources[1].format, v1::TS);
  Options options;
  options.set_format(v1::TS);
  ASSERT_OK_AND_ASSIGN(sources, ResolveSources({dir.File("d")}, options, {"/"}));
  EXPECT_EQ(sources.size(), 1u);
  options.set_format(v1::NPY);
  EXPECT_THAT(ResolveSources({dir.File("d")}, options, {"/"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no file of a known kind")));
}

TEST(ResolveSourcesTest, SameFileTwice_IsRefused) {
  TempDir dir;
  const std::string file = dir.Write("d/b.ts", "x");
  EXPECT_THAT(ResolveSources({file, dir.File("d")}, {}, {"/"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("named twice")));
  EXPECT_THAT(ResolveSources({}, {}, {"/"}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--source")));
}

TEST(ResolveSourcesTest, TargetFile_IsCheckedAndNoSourceItself) {
  TempDir dir;
  dir.Write("d/x.npy", "\x93NUMPY");
  dir.Write("d/y.npy", "\x93NUMPY");
  Options options;
  options.set_target_array("y.npy");
  ASSERT_OK_AND_ASSIGN(const std::vector<Source> sources, ResolveSources({dir.File("d")}, options, {"/"}));
  ASSERT_EQ(sources.size(), 1u);
  EXPECT_EQ(sources[0].target_path, dir.File("d/y.npy"));
  options.set_target_array(dir.Write("secret.npy", "x"));
  EXPECT_THAT(ResolveSources({dir.File("d/x.npy")}, options, {dir.File("d")}),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("secret.npy")));
}

TEST(CompleteOptionsTest, Defaults_AreWrittenOut) {
  ASSERT_OK_AND_ASSIGN(Options options, CompleteOptions({}));
  EXPECT_EQ(options.missing(), Options::MISSING_ERROR);
  EXPECT_EQ(options.unequal(), Options::UNEQUAL_ERROR);
  EXPECT_EQ(options.layout(), Options::NCT);
  options.Clear();
  options.set_window(96);
  ASSERT_OK_AND_ASSIGN(options, CompleteOptions(options));
  EXPECT_EQ(options.stride(), 96u);
}

TEST(CompleteOptionsTest, BadValues_NameTheOption) {
  const auto expect_bad = [](const std::function<void(Options*)>& change, const std::string& name) {
    Options options;
    change(&options);
    EXPECT_THAT(CompleteOptions(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(name)));
  };
  expect_bad([](Options* o) { o->set_window(1); }, "--window");
  expect_bad([](Options* o) { o->set_window(uint64_t{1} << 63); }, "--window");
  expect_bad([](Options* o) { o->set_stride(5); }, "--stride");
  expect_bad([](Options* o) { o->set_window(5), o->set_unequal(Options::UNEQUAL_PAD); }, "--unequal");
  expect_bad([](Options* o) { o->set_missing(static_cast<Options::Missing>(77)); }, "--missing");
  expect_bad([](Options* o) { o->set_unequal(static_cast<Options::Unequal>(77)); }, "--unequal");
  expect_bad([](Options* o) { o->set_target(static_cast<Options::Target>(77)); }, "--target");
  expect_bad([](Options* o) { o->set_layout(static_cast<Options::ArrayLayout>(77)); }, "--layout");
  expect_bad([](Options* o) { o->set_format(static_cast<v1::SourceFormat>(77)); }, "--format");
  const std::string name = "T1";
  expect_bad([&](Options* o) { *o->add_channels() = name, *o->add_channels() = name; }, "--channels");
  expect_bad([](Options* o) { o->mutable_csv()->set_gap_seconds(-1); }, "--gap");
  expect_bad([](Options* o) { o->mutable_csv()->set_gap_seconds(std::nan("")); }, "--gap");
  expect_bad([&](Options* o) { o->mutable_csv()->set_label(name), o->mutable_csv()->set_label_from_file_name(true); },
             "--label");
}

}  // namespace
}  // namespace stoker::ingest
