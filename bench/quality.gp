# gnuplot: perplexity against the size of the linear layers, ours and the peers'.
# bench/quality.py calls it with the variables ours, refined, llama, ik (files of bits,
# perplexity and a name, separated by commas), peers (0: there are none to compare
# with), full (perplexity of the source), caption and output.
set terminal svg size 820,560 font "sans-serif,13" background "white"
set output output
set datafile separator ","
set title "Perplexity against size"
set xlabel "bits per weight of the linear layers, scales and codebooks included\n{/*0.8 ".caption."}"
set ylabel "perplexity (log scale)"
set logscale y
set xrange [1.3:5.2]
set yrange [18:30000]
set grid
set key top right
set linetype 1 lc rgb "#20609f" pt 7 ps 0.9 lw 2
set linetype 2 lc rgb "#c05020" pt 5 ps 0.8
set linetype 3 lc rgb "#408040" pt 9 ps 0.9
set linetype 5 lc rgb "#102040" pt 13 ps 1.1 lw 2
set linetype 4 lc rgb "#808080" dt 2
if (peers) {
  plot full title sprintf("full precision: %.2f", full) with lines lt 4, \
       llama using 1:2 title "llama.cpp" with points lt 2, \
       llama using 1:2:3 notitle with labels left rotate by 35 offset 0.5,0.4 font ",9" tc rgb "#c05020", \
       ik using 1:2 title "ik\\_llama.cpp" with points lt 3, \
       ik using 1:2:3 notitle with labels left rotate by -35 offset 0.5,-0.4 font ",9" tc rgb "#408040", \
       ours using 1:2 smooth unique title "novaq" with linespoints lt 1, \
       refined using 1:2 smooth unique title "novaq, refined" with linespoints lt 5
} else {
  plot full title sprintf("full precision: %.2f", full) with lines lt 4, \
       ours using 1:2 smooth unique title "novaq" with linespoints lt 1, \
       refined using 1:2 smooth unique title "novaq, refined" with linespoints lt 5
}
