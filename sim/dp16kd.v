// Behaviour of the ECP5 DP16KD: two ports of 1 to 18 bits, or one that writes and one that reads 36, with or without
// output registers. For simulation only; the settings that Yosys does not use are refused. Address pins and bytes are
// as in Yosys' lattice/brams_map_16kd.v. Bits that one port reads while the other writes them come inverted: on the part
// they are undefined.
module DP16KD #(
    parameter DATA_WIDTH_A = 18, parameter DATA_WIDTH_B = 18, parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG", parameter RESETMODE = "SYNC", parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000", parameter CSDECODE_B = "0b000", parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL", parameter CLKAMUX = "CLKA", parameter CLKBMUX = "CLKB", parameter GSR = "AUTO",
    parameter [319:0] INITVAL_00 = 0, parameter [319:0] INITVAL_01 = 0, parameter [319:0] INITVAL_02 = 0, parameter
    [319:0] INITVAL_03 = 0, parameter [319:0] INITVAL_04 = 0, parameter [319:0] INITVAL_05 = 0, parameter [319:0]
    INITVAL_06 = 0, parameter [319:0] INITVAL_07 = 0, parameter [319:0] INITVAL_08 = 0, parameter [319:0] INITVAL_09
    = 0, parameter [319:0] INITVAL_0A = 0, parameter [319:0] INITVAL_0B = 0, parameter [319:0] INITVAL_0C = 0,
    parameter [319:0] INITVAL_0D = 0, parameter [319:0] INITVAL_0E = 0, parameter [319:0] INITVAL_0F = 0, parameter
    [319:0] INITVAL_10 = 0, parameter [319:0] INITVAL_11 = 0, parameter [319:0] INITVAL_12 = 0, parameter [319:0]
    INITVAL_13 = 0, parameter [319:0] INITVAL_14 = 0, parameter [319:0] INITVAL_15 = 0, parameter [319:0] INITVAL_16
    = 0, parameter [319:0] INITVAL_17 = 0, parameter [319:0] INITVAL_18 = 0, parameter [319:0] INITVAL_19 = 0,
    parameter [319:0] INITVAL_1A = 0, parameter [319:0] INITVAL_1B = 0, parameter [319:0] INITVAL_1C = 0, parameter
    [319:0] INITVAL_1D = 0, parameter [319:0] INITVAL_1E = 0, parameter [319:0] INITVAL_1F = 0, parameter [319:0]
    INITVAL_20 = 0, parameter [319:0] INITVAL_21 = 0, parameter [319:0] INITVAL_22 = 0, parameter [319:0] INITVAL_23
    = 0, parameter [319:0] INITVAL_24 = 0, parameter [319:0] INITVAL_25 = 0, parameter [319:0] INITVAL_26 = 0,
    parameter [319:0] INITVAL_27 = 0, parameter [319:0] INITVAL_28 = 0, parameter [319:0] INITVAL_29 = 0, parameter
    [319:0] INITVAL_2A = 0, parameter [319:0] INITVAL_2B = 0, parameter [319:0] INITVAL_2C = 0, parameter [319:0]
    INITVAL_2D = 0, parameter [319:0] INITVAL_2E = 0, parameter [319:0] INITVAL_2F = 0, parameter [319:0] INITVAL_30
    = 0, parameter [319:0] INITVAL_31 = 0, parameter [319:0] INITVAL_32 = 0, parameter [319:0] INITVAL_33 = 0,
    parameter [319:0] INITVAL_34 = 0, parameter [319:0] INITVAL_35 = 0, parameter [319:0] INITVAL_36 = 0, parameter
    [319:0] INITVAL_37 = 0, parameter [319:0] INITVAL_38 = 0, parameter [319:0] INITVAL_39 = 0, parameter [319:0]
    INITVAL_3A = 0, parameter [319:0] INITVAL_3B = 0, parameter [319:0] INITVAL_3C = 0, parameter [319:0] INITVAL_3D
    = 0, parameter [319:0] INITVAL_3E = 0, parameter [319:0] INITVAL_3F = 0
) (
    input DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2,
    DIA1, DIA0,
    input ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
    DOA1, DOA0,
    input DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2,
    DIB1, DIB0,
    input ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
    DOB1, DOB0
);
    initial if (CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || CLKAMUX != "CLKA"
                || CLKBMUX != "CLKB") begin
        $display("DP16KD: this model has rising clocks and no chip select");
        $fatal;
    end
    always @(posedge CLKA) if ((RSTA || RSTB) && RESETMODE != "SYNC") begin
        $display("DP16KD: this model has synchronous resets");
        $fatal;
    end
    reg [17:0] cells [0:1023];
    task load(input integer slice, input [319:0] bits);
        integer i;
        for (i = 0; i < 16; i = i + 1) cells[16 * slice + i] = bits[20 * i +: 18];
    endtask
    initial begin
        load(0, INITVAL_00);
        load(1, INITVAL_01);
        load(2, INITVAL_02);
        load(3, INITVAL_03);
        load(4, INITVAL_04);
        load(5, INITVAL_05);
        load(6, INITVAL_06);
        load(7, INITVAL_07);
        load(8, INITVAL_08);
        load(9, INITVAL_09);
        load(10, INITVAL_0A);
        load(11, INITVAL_0B);
        load(12, INITVAL_0C);
        load(13, INITVAL_0D);
        load(14, INITVAL_0E);
        load(15, INITVAL_0F);
        load(16, INITVAL_10);
        load(17, INITVAL_11);
        load(18, INITVAL_12);
        load(19, INITVAL_13);
        load(20, INITVAL_14);
        load(21, INITVAL_15);
        load(22, INITVAL_16);
        load(23, INITVAL_17);
        load(24, INITVAL_18);
        load(25, INITVAL_19);
        load(26, INITVAL_1A);
        load(27, INITVAL_1B);
        load(28, INITVAL_1C);
        load(29, INITVAL_1D);
        load(30, INITVAL_1E);
        load(31, INITVAL_1F);
        load(32, INITVAL_20);
        load(33, INITVAL_21);
        load(34, INITVAL_22);
        load(35, INITVAL_23);
        load(36, INITVAL_24);
        load(37, INITVAL_25);
        load(38, INITVAL_26);
        load(39, INITVAL_27);
        load(40, INITVAL_28);
        load(41, INITVAL_29);
        load(42, INITVAL_2A);
        load(43, INITVAL_2B);
        load(44, INITVAL_2C);
        load(45, INITVAL_2D);
        load(46, INITVAL_2E);
        load(47, INITVAL_2F);
        load(48, INITVAL_30);
        load(49, INITVAL_31);
        load(50, INITVAL_32);
        load(51, INITVAL_33);
        load(52, INITVAL_34);
        load(53, INITVAL_35);
        load(54, INITVAL_36);
        load(55, INITVAL_37);
        load(56, INITVAL_38);
        load(57, INITVAL_39);
        load(58, INITVAL_3A);
        load(59, INITVAL_3B);
        load(60, INITVAL_3C);
        load(61, INITVAL_3D);
        load(62, INITVAL_3E);
        load(63, INITVAL_3F);
    end

    // Where, among the 18 bits of a row, the word begins that a port of `width` addresses; and which bits it has.
    function [4:0] first(input integer width, input [13:0] address);
        case (width)
            1: first = (address[3] ? 5'd9 : 5'd0) + {2'b0, address[2:0]};
            2: first = (address[3] ? 5'd9 : 5'd0) + {2'b0, address[2:1], 1'b0};
            4: first = (address[3] ? 5'd9 : 5'd0) + {2'b0, address[2], 2'b0};
            9: first = address[3] ? 5'd9 : 5'd0;
            default: first = 0;
        endcase
    endfunction
    function [17:0] bits(input integer width, input [13:0] address);
        bits = (width >= 18 ? 18'h3ffff : (18'h1 << width) - 18'h1) << first(width, address);
    endfunction
    // Bits of a row that a port writes: two bytes have an enable each.
    function [17:0] written(input integer width, input [13:0] address);
        written = width == 18 ? {{9{address[1]}}, {9{address[0]}}} : bits(width, address);
    endfunction

    wire [17:0] data_a = {DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
        DIA3, DIA2, DIA1, DIA0};
    wire [13:0] address_a = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
    wire [17:0] data_b = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
        DIB3, DIB2, DIB1, DIB0};
    wire [13:0] address_b = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
    localparam WIDE_WRITE = DATA_WIDTH_A == 36, WIDE_READ = DATA_WIDTH_B == 36;
    wire write_a = CEA && WEA, write_b = CEB && WEB;
    wire [17:0] even_a = {{9{address_a[1]}}, {9{address_a[0]}}}, odd_a = {{9{address_a[3]}}, {9{address_a[2]}}};
    wire [17:0] mask_a = written(DATA_WIDTH_A, address_a), mask_b = written(DATA_WIDTH_B, address_b);

    // A row as one port sees it while the other writes.
    function [17:0] beside_a(input [9:0] row);
        if (!write_a || row[9:1] != address_a[13:5]) beside_a = cells[row];
        else if (WIDE_WRITE) beside_a = cells[row] ^ (row[0] ? odd_a : even_a);
        else beside_a = cells[row] ^ (row[0] == address_a[4] ? mask_a : 18'h0);
    endfunction
    function [17:0] beside_b(input [9:0] row);
        beside_b = cells[row] ^ (write_b && row == address_b[13:4] ? mask_b : 18'h0);
    endfunction
    function [17:0] merged(input [17:0] old, input [17:0] data, input [17:0] mask);
        merged = (old & ~mask) | (data & mask);
    endfunction

    wire [9:0] row_a = address_a[13:4], row_b = address_b[13:4];
    wire [4:0] first_a = first(DATA_WIDTH_A, address_a), first_b = first(DATA_WIDTH_B, address_b);
    reg [17:0] latch_a = 0, latch_b = 0, low = 0, register_a = 0, register_b = 0, low_register = 0;
    reg [17:0] seen_a, seen_b;
    always @(posedge CLKA) begin
        if (write_a && WIDE_WRITE) begin
            cells[{address_a[13:5], 1'b0}] <= merged(cells[{address_a[13:5], 1'b0}], data_a, even_a);
            cells[{address_a[13:5], 1'b1}] <= merged(cells[{address_a[13:5], 1'b1}], data_b, odd_a);
        end else if (write_a) cells[row_a] <= merged(cells[row_a], data_a << first_a, mask_a);
        seen_a = beside_b(row_a);
        if (write_a && WRITEMODE_A == "WRITETHROUGH") seen_a = merged(seen_a, data_a << first_a, mask_a);
        if (RSTA) latch_a <= 0;
        else if (CEA && (!WEA || WRITEMODE_A != "NORMAL"))
            latch_a <= (seen_a & bits(DATA_WIDTH_A, address_a)) >> first_a;
        if (RSTA) register_a <= 0; else if (OCEA) register_a <= latch_a;
    end
    always @(posedge CLKB) begin
        if (write_b && !WIDE_WRITE && !WIDE_READ)
            cells[row_b] <= merged(cells[row_b], data_b << first_b, mask_b);
        seen_b = beside_a(row_b);
        if (write_b && WRITEMODE_B == "WRITETHROUGH") seen_b = merged(seen_b, data_b << first_b, mask_b);
        if (RSTB) begin
            latch_b <= 0;
            low <= 0;
        end else if (CEB && WIDE_READ) begin
            low <= beside_a({row_b[9:1], 1'b0});
            latch_b <= beside_a({row_b[9:1], 1'b1});
        end else if (CEB && (!WEB || WRITEMODE_B != "NORMAL"))
            latch_b <= (seen_b & bits(DATA_WIDTH_B, address_b)) >> first_b;
        if (RSTB) begin
            register_b <= 0;
            low_register <= 0;
        end else if (OCEB) begin
            register_b <= latch_b;
            low_register <= low;
        end
    end
    wire [17:0] out_a = REGMODE_A == "OUTREG" ? register_a : latch_a;
    wire [17:0] out_low = REGMODE_B == "OUTREG" ? low_register : low;
    wire [17:0] out_b = REGMODE_B == "OUTREG" ? register_b : latch_b;
    assign {DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2,
        DOA1, DOA0} = WIDE_READ ? out_low : out_a;
    assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
        DOB1, DOB0} = out_b;
endmodule
