"""Files as others keep them: the trees of `.npy` files, annotation tables and label tools around this project.

table.py         what lies where in each layout, as data
npy.py           one stranger's `.npy`, read without trusting it
tree.py          a whole tree: which file belongs to which clip, and whether they fit together
export.py        an artifact as the files of such a tree
events.py        hard labels as events, and back in tables: llp_csv.py, label_studio.py
folder.py        a folder that appears whole or not at all
"""
