// SPDX-License-Identifier: Apache-2.0
// Crystals: files in, graphs out, through daemon, workers and client library.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/fixture.h"

namespace stoker {
namespace {

using testing::IntegrationTest;
using testing::Read;

class CrystalsTest : public IntegrationTest {
 protected:
  // Cubes of textbooks by their lattice constants, in Å, which are the targets too. Returns the folder.
  std::string WriteTextbook() {
    const struct {
      const char *id, *elements, *counts, *atoms;
      double a;
    } cells[] = {
        {"Po", "Po", "1", "0 0 0\n", 3.359},
        {"Fe", "Fe", "2", "0 0 0\n0.5 0.5 0.5\n", 2.866},
        {"Cu", "Cu", "4", "0 0 0\n0 0.5 0.5\n0.5 0 0.5\n0.5 0.5 0\n", 3.615},
        {"CsCl", "Cs Cl", "1 1", "0 0 0\n0.5 0.5 0.5\n", 4.123},
        {"NaCl", "Na Cl", "4 4", "0 0 0\n0 .5 .5\n.5 0 .5\n.5 .5 0\n.5 .5 .5\n.5 0 0\n0 .5 0\n0 0 .5\n", 5.640},
    };
    std::string table;
    for (const auto& cell : cells) {
      WriteData(absl::StrCat("book/", cell.id, ".vasp"),
                absl::StrCat(cell.id, "\n", cell.a, "\n1 0 0\n0 1 0\n0 0 1\n", cell.elements, "\n", cell.counts,
                             "\nDirect\n", cell.atoms));
      absl::StrAppend(&table, cell.id, ".vasp,", cell.a, "\n");
    }
    WriteData("book/id_prop.csv", table);
    return DataFile("book");
  }
};

template <typename T>
std::vector<T> Values(const Batch& batch, absl::string_view name) {
  const absl::StatusOr<TensorView<T>> view = batch.Get<T>(name);
  EXPECT_OK(view);
  return view.ok() ? std::vector<T>(view->data().begin(), view->data().end()) : std::vector<T>();
}

TEST_F(CrystalsTest, EpochOfATextbook_HasEveryGraphOnce) {
  ASSERT_NO_FATAL_FAILURE(StartDaemon());
  const v1::IngestEvent::Done done = Ingest("book", WriteTextbook());
  EXPECT_EQ(done.dataset().kind(), v1::CRYSTALS);
  EXPECT_EQ(done.dataset().samples(), 5u);
  EXPECT_EQ(done.dataset().manifest().crystals().atoms(), 17u);
  // Each atom of Po, NaCl: 6 + 12; Fe, CsCl: 8 + 6; Cu: 12.
  EXPECT_EQ(done.dataset().manifest().crystals().edges(), (1 + 8) * 18u + (2 + 2) * 14u + 4 * 12u);
  ASSERT_OK_AND_ASSIGN(Loader loader, client().Open(Read("book", 2)));
  std::map<float, int64_t> edges;  // by lattice constant
  uint64_t batches = 0;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const std::optional<Batch> batch, loader.Next(absl::Seconds(60)));
    if (!batch) break;
    ++batches;
    const std::vector<float> target = Values<float>(*batch, "target");
    const std::vector<int64_t> counts = Values<int64_t>(*batch, "num_edges");
    ASSERT_EQ(target.size(), counts.size());
    for (size_t i = 0; i < target.size(); ++i) edges[target[i]] = counts[i];
  }
  EXPECT_EQ(batches, 3u);
  EXPECT_EQ(edges, (std::map<float, int64_t>{
                       {2.866f, 2 * 14}, {3.359f, 18}, {3.615f, 4 * 12}, {4.123f, 2 * 14}, {5.64f, 8 * 18}}));
  EXPECT_TRUE(Ingest("again", DataFile("book")).unchanged());
}

}  // namespace
}  // namespace stoker
