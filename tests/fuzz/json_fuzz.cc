// SPDX-License-Identifier: Apache-2.0
// Lists of JARVIS records and tables of matbench, plain or packed.
#include "server/ingest/json_reader.h"
#include "server/ingest/json_records.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stoker::ingest::JsonElement;
  const stoker::fuzz::MemoryFile file(stoker::fuzz::View(data, size));
  stoker::ingest::JsonReader reader;
  std::vector<std::string> columns;
  const absl::Status status =
      stoker::ingest::ScanJson(file.path(), {}, [&](const JsonElement& e) -> absl::StatusOr<bool> {
        if (e.key == "columns") columns.push_back(reader.ReadId(e.text));
        const std::string id_key = reader.FindIdKey(e.text);
        auto structure = e.key.empty() ? reader.ReadJarvis(e.text, "fuzz", {id_key, {"gap"}})
                                       : reader.ReadMatbench(e.text, "fuzz", columns, {"", {"gap"}});
        (void)stoker::fuzz::CheckFound(std::move(structure));  // aborts itself
        return true;
      });
  stoker::fuzz::CheckStatus(status);
  return 0;
}
