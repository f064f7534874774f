// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/ingest/file_bytes.h"
#include "server/ingest/id_prop.h"
#include "server/ingest/json_records.h"
#include "server/ingest/text.h"
#include "shared/base/posix.h"
#include "shared/base/status_macros.h"

namespace stoker::ingest {
namespace {

using Options = v1::IngestOptions;

constexpr size_t kSniffBytes = 4096;
constexpr uint64_t kMaxWindow = uint64_t{1} << 40;

struct Extension {
  absl::string_view name;
  v1::SourceFormat format;
};
constexpr Extension kExtensions[] = {{".ts", v1::TS},       {".tsv", v1::UCR},       {".txt", v1::UCR},
                                     {".npy", v1::NPY},     {".npz", v1::NPY},       {".csv", v1::CSV},
                                     {".json", v1::JARVIS}, {".xyz", v1::EXTXYZ},    {".extxyz", v1::EXTXYZ},
                                     {".vasp", v1::POSCAR}, {".poscar", v1::POSCAR}, {".cif", v1::CIF}};
// Larger files of frames are cut, not read whole.
constexpr uint64_t kGroupedFileBytes = 1 << 20;

// JARVIS stands for either kind of JSON.
v1::SourceFormat FormatByName(const std::filesystem::path& path) {
  const std::string name = absl::AsciiStrToLower(path.filename().string());
  if (absl::EndsWith(name, ".json.gz")) return v1::JARVIS;
  if (name == "id_prop.csv") return v1::ID_PROP;
  const std::string extension = absl::AsciiStrToLower(path.extension().string());
  for (const Extension& known : kExtensions) {
    if (extension == known.name) return known.format;
  }
  return absl::StartsWith(name, "poscar") || absl::StartsWith(name, "contcar") ? v1::POSCAR : v1::FORMAT_AUTO;
}

// A list of records, or a table.
absl::StatusOr<v1::SourceFormat> JsonFormat(const std::string& path) {
  v1::SourceFormat format = v1::JARVIS;
  STOKER_RETURN_IF_ERROR(ScanJson(path, {}, [&](const JsonElement& element) -> absl::StatusOr<bool> {
    if (!element.key.empty()) format = v1::MATBENCH;
    return false;
  }));
  return format;
}

absl::StatusOr<std::string> FirstBytes(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(path));
  if (source.size_bytes == 0) return BadData(path, "the file is empty", "remove it from the sources");
  std::string head(kSniffBytes, '\0');
  STOKER_ASSIGN_OR_RETURN(const size_t got, ReadSome(source.fd.get(), 0, head.data(), head.size(), path));
  head.resize(got);
  return head;
}

absl::StatusOr<std::string> RealPath(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> resolved(::realpath(path.c_str(), nullptr), &::free);
  if (resolved == nullptr && (errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG)) {
    return absl::NotFoundError(absl::StrCat("reading ", path, ": ", strerror(errno)));
  }
  if (resolved == nullptr) return ErrnoStatus(errno, "reading", path);
  return std::string(resolved.get());
}

bool IsBelow(const std::string& path, const std::string& root) {
  if (root == "/") return true;
  return absl::StartsWith(path, root) && (path.size() == root.size() || path[root.size()] == '/');
}

absl::Status BadOption(absl::string_view field, absl::string_view reason) {
  return absl::InvalidArgumentError(absl::StrCat("ingest options: ", field, ": ", reason));
}

// Files of a directory with an extension of the format, by name.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& directory, v1::SourceFormat format) {
  std::vector<std::string> paths;
  std::error_code error;
  std::filesystem::directory_iterator entries(directory, error), end;
  while (!error && entries != end) {
    const std::filesystem::path& path = entries->path();
    const v1::SourceFormat found = FormatByName(path);
    const bool wanted = found != v1::FORMAT_AUTO && (format == v1::FORMAT_AUTO || format == found ||
                                                     (format == v1::MATBENCH && found == v1::JARVIS));
    std::error_code ignored;  // a file that vanished is no file
    if (wanted && path.filename().string()[0] != '.' && std::filesystem::is_regular_file(path, ignored)) {
      paths.push_back(path.string());
    }
    if (paths.size() > kMaxSourceFiles) {
      return absl::ResourceExhaustedError(
          absl::StrCat("reading ", directory, ": more than ", kMaxSourceFiles, " files"));
    }
    entries.increment(error);
  }
  if (error) return ErrnoStatus(error.value(), "reading", directory);
  if (paths.empty()) {
    return BadData(directory,
                   "no file of a known kind (.ts .tsv .txt .npy .npz .csv .json .xyz .cif .vasp) in the directory",
                   "name the files, and their --format");
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The targets of a .npy are another file, named by a path beside it or an absolute one; those of an .npz have a key.
absl::Status ResolveTargets(const Options& options, absl::Span<const std::string> roots, Source* source) {
  if (source->format != v1::NPY || options.target_array().empty()) return absl::OkStatus();
  STOKER_ASSIGN_OR_RETURN(const std::string head, FirstBytes(source->path));
  if (head.substr(0, 2) == "PK") return absl::OkStatus();
  const std::filesystem::path named(options.target_array());
  const std::filesystem::path path = std::filesystem::path(source->path).parent_path() / named;
  STOKER_ASSIGN_OR_RETURN(source->target_path, CheckRoots(path.string(), roots));
  return absl::OkStatus();
}

// What a directory stands for: its id_prop, or its files.
absl::StatusOr<std::vector<std::string>> ListSources(const std::string& directory, v1::SourceFormat format) {
  if (format == v1::FORMAT_AUTO || format == v1::ID_PROP) {
    for (const char* name : {"id_prop.json", "id_prop.csv"}) {  // in the order that ALIGNN looks for them
      const std::string path = absl::StrCat(directory, "/", name);
      std::error_code ignored;
      if (std::filesystem::exists(path, ignored)) return std::vector<std::string>{path};
    }
  }
  if (format == v1::ID_PROP) {
    return BadData(directory, "no id_prop.csv and no id_prop.json in the directory", "choose another --format");
  }
  return ListDirectory(directory, format);
}

// The structure files that an id_prop.csv names. One that is not there is told by the reader, with its line.
absl::Status ResolveMembers(absl::Span<const std::string> roots, Source* source) {
  STOKER_ASSIGN_OR_RETURN(const uint64_t size, SourceSize(source->path));
  const IdPropRange whole = {source->path, 0, size, 1};
  return ReadIdProp(whole, [&](uint64_t, const std::vector<absl::string_view>& fields) -> absl::Status {
    const absl::StatusOr<std::string> file = FindStructureFile(source->path, fields[0]);
    if (!file.ok()) return absl::OkStatus();
    STOKER_ASSIGN_OR_RETURN(std::string resolved, CheckRoots(*file, roots));
    source->files.push_back(std::move(resolved));
    return absl::OkStatus();
  });
}

absl::Status CheckOneKind(absl::Span<const Source> sources) {
  for (const Source& source : sources) {
    if (IsCrystalFormat(source.format) == IsCrystalFormat(sources[0].format)) continue;
    return BadData(source.path,
                   absl::StrCat("time series and crystals in one data set: ", sources[0].path, " is other"),
                   "name the files of one kind, or their --format");
  }
  return absl::OkStatus();
}

// Structure files of their own that follow each other in one folder become one source, so that a unit has enough work.
std::vector<Source> GroupFiles(std::vector<Source> sources) {
  std::vector<Source> grouped;
  for (size_t i = 0; i < sources.size();) {
    const auto folder = [](const Source& s) { return std::filesystem::path(s.path).parent_path().string(); };
    const auto alone = [](const Source& s) {
      std::error_code ignored;
      const bool own_file = s.format == v1::POSCAR || s.format == v1::CIF || s.format == v1::EXTXYZ;
      return !own_file || (s.format == v1::EXTXYZ && std::filesystem::file_size(s.path, ignored) > kGroupedFileBytes);
    };
    size_t next = i + 1;
    while (!alone(sources[i]) && next < sources.size() && !alone(sources[next]) &&
           sources[next].format == sources[i].format && folder(sources[next]) == folder(sources[i])) {
      ++next;
    }
    if (next == i + 1) {
      grouped.push_back(std::move(sources[i]));
    } else {
      Source group = {folder(sources[i]), sources[i].format, {}};
      for (size_t k = i; k < next; ++k) group.files.push_back(std::move(sources[k].path));
      grouped.push_back(std::move(group));
    }
    i = next;
  }
  return grouped;
}

}  // namespace

bool IsCrystalFormat(v1::SourceFormat format) {
  return format == v1::JARVIS || format == v1::ID_PROP || format == v1::EXTXYZ || format == v1::MATBENCH ||
         format == v1::POSCAR || format == v1::CIF;
}

absl::StatusOr<uint64_t> SourceSize(const std::string& path) {
  STOKER_ASSIGN_OR_RETURN(const OpenSource source, OpenRegularFile(path));
  return source.size_bytes;
}

absl::StatusOr<std::string> CheckRoots(const std::string& path, absl::Span<const std::string> roots) {
  if (path.empty() || path[0] != '/') return BadData(Quoted(path), "not an absolute path", "name the file from /");
  if (!IsUtf8(path) || path.find('\0') != std::string::npos) {
    return BadData(Quoted(path), "the path is not UTF-8 text", "rename the file");
  }
  STOKER_ASSIGN_OR_RETURN(std::string resolved, RealPath(path));
  if (!IsUtf8(resolved)) return BadData(Quoted(resolved), "the path is not UTF-8 text", "rename the file");
  for (const std::string& root : roots) {
    const absl::StatusOr<std::string> resolved_root = RealPath(root);
    if (resolved_root.ok() && IsBelow(resolved, *resolved_root)) return resolved;
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "reading ", path, resolved == path ? "" : absl::StrCat(" (which is ", resolved, ")"),
      ": not below a directory that the daemon may read (", roots.empty() ? "none" : absl::StrJoin(roots, ", "),
      "); start stokerd with --root naming one that holds it, or move the file"));
}

absl::StatusOr<v1::SourceFormat> ResolveFormat(const std::string& path, v1::SourceFormat option) {
  if (option == v1::ID_PROP) {
    const v1::SourceFormat named = FormatByName(path);
    if (named == v1::JARVIS) return v1::JARVIS;  // id_prop.json
    if (named != v1::ID_PROP) return BadData(path, "not an id_prop.csv", "name the folder that holds it");
    return v1::ID_PROP;
  }
  if (option != v1::FORMAT_AUTO) return option;
  STOKER_ASSIGN_OR_RETURN(const std::string head, FirstBytes(path));
  const v1::SourceFormat named = FormatByName(path);
  if (named == v1::JARVIS) return JsonFormat(path);
  if (named != v1::FORMAT_AUTO) return named;
  if (absl::StartsWith(head, "\x93NUMPY") || absl::StartsWith(head, "PK\x03\x04")) return v1::NPY;
  absl::string_view text = head;
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  text = absl::StripLeadingAsciiWhitespace(text);
  if (!text.empty() && absl::StrContains("[{", text.substr(0, 1))) return JsonFormat(path);
  if (!text.empty() && absl::StrContains("#%@", text.substr(0, 1))) return v1::TS;
  double label;
  const size_t stop = text.find_first_of(" \t,\r\n");
  if (ParseValue(text.substr(0, stop), &label)) return v1::UCR;
  return BadData(path, "its format cannot be told from name and content", "choose its --format");
}

absl::StatusOr<std::vector<Source>> ResolveSources(absl::Span<const std::string> paths, const Options& options,
                                                   absl::Span<const std::string> roots) {
  if (paths.empty()) return absl::InvalidArgumentError("ingest: no source; name at least one, --source PATH");
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    STOKER_ASSIGN_OR_RETURN(const std::string resolved, CheckRoots(path, roots));
    std::error_code ignored;
    if (!std::filesystem::is_directory(resolved, ignored)) {
      files.push_back(path);
      continue;
    }
    STOKER_ASSIGN_OR_RETURN(const std::vector<std::string> listed, ListSources(resolved, options.format()));
    files.insert(files.end(), listed.begin(), listed.end());
  }
  std::vector<Source> sources;
  std::set<std::string> seen;
  std::set<std::string> targets;
  for (const std::string& file : files) {
    Source source;
    STOKER_ASSIGN_OR_RETURN(source.path, CheckRoots(file, roots));  // a link in a directory may lead outside
    if (!seen.insert(source.path).second) return BadData(source.path, "the file is named twice", "name it once");
    STOKER_ASSIGN_OR_RETURN(source.format, ResolveFormat(source.path, options.format()));
    STOKER_RETURN_IF_ERROR(ResolveTargets(options, roots, &source));
    if (source.format == v1::ID_PROP) STOKER_RETURN_IF_ERROR(ResolveMembers(roots, &source));
    if (!source.target_path.empty()) targets.insert(source.target_path);
    sources.push_back(std::move(source));
  }
  // In a directory the file with the targets lies beside the data.
  std::erase_if(sources, [&](const Source& s) { return targets.contains(s.path); });
  if (sources.size() > 1 && !targets.empty()) {
    return BadData(sources[1].path, "several arrays share one file of targets",
                   "ingest one .npy at a time, or an .npz");
  }
  STOKER_RETURN_IF_ERROR(CheckOneKind(sources));
  return GroupFiles(std::move(sources));
}

absl::StatusOr<Options> CompleteOptions(const Options& options) {
  Options out = options;
  if (!v1::SourceFormat_IsValid(out.format())) return BadOption("format (--format)", "not a known format");
  if (!Options::ArrayLayout_IsValid(out.layout())) return BadOption("layout (--layout)", "not nct or ntc");
  if (!Options::Missing_IsValid(out.missing())) return BadOption("missing (--missing)", "not error, linear or zero");
  if (!Options::Unequal_IsValid(out.unequal())) return BadOption("unequal (--unequal)", "not error, paa, crop or pad");
  if (!Options::Target_IsValid(out.target())) return BadOption("target (--target)", "not none, class or value");
  if (out.window() == 1 || out.window() > kMaxWindow) {
    return BadOption("window (--window)", absl::StrCat(out.window(), " points; at least 2, or 0 for whole series"));
  }
  if (out.stride() > kMaxWindow || (out.stride() > 0 && out.window() == 0)) {
    return BadOption("stride (--stride)", out.window() == 0 ? "there is no --window to move" : "too large");
  }
  if (out.window() > 0 && out.unequal() > Options::UNEQUAL_ERROR) {
    return BadOption("unequal (--unequal)", "windows are all of one length: leave it out, or --window");
  }
  std::set<std::string> channels;
  for (const std::string& name : out.channels()) {
    if (name.empty() || !channels.insert(name).second) {
      return BadOption("channels (--channels)", absl::StrCat(Quoted(name), " is empty or there twice"));
    }
  }
  const Options::Csv& csv = out.csv();
  if (!std::isfinite(csv.gap_seconds()) || csv.gap_seconds() < 0) {
    return BadOption("csv.gap_seconds (--gap)", "not a number of seconds, at least 0");
  }
  if (!csv.label().empty() && csv.label_from_file_name()) {
    return BadOption("csv.label (--label)", "--label-from-file-name gives the label already");
  }
  if (out.stride() == 0) out.set_stride(out.window());
  if (out.missing() == Options::MISSING_UNSPECIFIED) out.set_missing(Options::MISSING_ERROR);
  if (out.unequal() == Options::UNEQUAL_UNSPECIFIED) out.set_unequal(Options::UNEQUAL_ERROR);
  if (out.layout() == Options::LAYOUT_UNSPECIFIED) out.set_layout(Options::NCT);
  return out;
}

}  // namespace stoker::ingest
